//! At rest nothing is written, in whatever way a MeshConfig says what it says.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_writes_in_its_own_way_is_not_written_again() {
    let (api, operator) = standing_mesh(json!({"proxy": {
        "rollout": {"observeSeconds": 0},
        "priorityClassName": "",
        "tolerations": [{"key": "dedicated", "operator": "Exists", "value": "", "effect": ""}],
        "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "0.5", "memory": "0.5Gi"}},
    }}))
    .await;
    let spec = &api.get(DAEMONSET).unwrap()["spec"];
    assert_eq!(spec["minReadySeconds"], Value::Null);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["priorityClassName"], Value::Null);
    assert_eq!(pod["tolerations"], json!([{"key": "dedicated", "operator": "Exists"}]));
    let resources =
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "512Mi"}});
    assert_eq!(pod["containers"][0]["resources"], resources);

    let before = api.writes();
    two_more_looks(&api, &operator).await;
    assert_eq!(api.writes(), before);

    // Another amount is one.
    api.edit(DAEMONSET, |set| {
        set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("1001m");
    });
    let limit = || {
        let set = api.get(DAEMONSET)?;
        let limits = &set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
        (limits["cpu"] == "1").then_some(())
    };
    until("the limit that was asked for", &api, limit).await;
}

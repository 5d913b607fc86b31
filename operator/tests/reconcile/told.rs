//! What the owners of Services are told by Events, whatever is in the way.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_told_is_told_soon_also_where_services_change_all_the_time() {
    let (api, operator) = standing_mesh(json!({})).await;
    let events = "/apis/events.k8s.io/v1/namespaces/shop/events";
    api.refuse("POST", events, 403, "not now", u32::MAX);
    let mut pay = a_service("10.96.0.21", &[80]);
    pay["metadata"]["annotations"] = json!({"weft.mesh/retry-attempts": "many"});
    api.put("/api/v1/namespaces/shop/services/pay", pay);
    let tried = || api.requests().contains(&format!("POST {events}")).then_some(());
    until("refused", &api, tried).await;
    until("its shadow", &api, || api.get("/api/v1/namespaces/weft-system/services/pay-weft-shop")).await;
    two_more_looks(&api, &operator).await;
    api.refuse_no_more();
    // It is tried again after ten seconds; what is renamed meanwhile concerns the other one.
    let told = async {
        for n in 0.. {
            if !api.events_on("Service", "pay").is_empty() {
                return;
            }
            api.edit(CART, |cart| cart["spec"]["ports"][0]["name"] = json!(format!("n{n}")));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("told");
}

//! WebSocket: the upgrade passes, and then bytes of any size both ways, for as long as either side wants.

use weft_tests::cluster;
use weft_tests::protocols::{Running, WebSocket, websocket};
use weft_tests::services::{self, UserService};
use weft_tests::stage::Stage;
use weft_tests::traffic::get_until;
use weft_tests::wait::seconds;
use weft_tests::workloads::{Server, available, scale};

#[test]
fn messages_of_every_size_come_back_and_the_close_is_clean() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-websocket", &[Server::new("web", 2)], &services).await?;
        stage.reaches("web", "web").await?;
        // Around where the length of a frame takes more bytes, and beyond any buffer.
        let args = [
            "-n",
            "2",
            "--sizes",
            "0,1,125,126,127,65535,65536,1000000,4000000",
            "--ping",
            "--timeout",
            "20000",
        ];
        let report = websocket(&cluster, stage.client(), &stage.url("web", "/ws"), &args).await?;
        assert_eq!((report.status, &report.error), (Some(101), &None), "{report:?}");
        assert!(report.headers.contains_key("x-lab-pod"), "{report:?}");
        assert_eq!((report.echoes.len(), report.pongs), (2 * 9 * 2, 2));
        assert!(report.echoes.iter().all(|echo| echo.intact), "{report:?}");
        assert_eq!(report.close, 1000, "{report:?}");

        // The server's close passes as well: it ends after text and binary of one round, going away.
        let args = ["--sizes", "10"];
        let report = websocket(&cluster, stage.client(), &stage.url("web", "/ws?end=2"), &args).await?;
        assert_eq!((&report.error, &report.close), (&None, &1001.into()), "{report:?}");

        // Where the server does not switch, its answer is heard.
        let report = websocket(&cluster, stage.client(), &stage.url("web", "/none?status=404"), &[]).await?;
        assert_eq!(report.status, Some(404), "{report:?}");
        stage.strike().await
    });
}

#[test]
fn an_open_websocket_outlives_changes_and_the_time_a_request_may_take() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-websocket-long", &[Server::new("web", 1)], &services).await?;
        stage.reaches("web", "web").await?;
        let url = stage.url("web", "/ws");
        let args = ["ws", &url, "--sizes", "10,100000", "--hold"];
        let open = Running::start(&cluster, stage.client(), &args, "holding").await?;
        scale(&cluster, &stage.ns, "web", 2).await?;
        available(&cluster, &stage.ns, "web").await?;
        services::ask(&cluster, &stage.ns, "web", "request-timeout", Some("1s")).await?;
        let slow = stage.url("web", "/?delay=2500");
        get_until(&cluster, stage.client(), &slow, "504", seconds(30), |answer| answer.status == Some(504))
            .await?;
        let report: WebSocket = open.stop().await?;
        assert_eq!((&report.error, &report.close), (&None, &1000.into()), "{report:?}");
        assert_eq!(report.echoes.len(), 8);
        assert!(report.echoes.iter().all(|echo| echo.intact), "{report:?}");
        stage.strike().await
    });
}

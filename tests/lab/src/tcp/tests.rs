use super::serve::{Behaviour, accept};
use super::*;

async fn server(behaviour: Behaviour) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(accept(listener, behaviour, "pod-1".into()));
    port
}

async fn client(port: u16, mode: Mode, connections: u32, bytes: u64) -> Value {
    let args = Args { to: String::new(), mode, connections, bytes, rate: None, hold: false, timeout: 5000 };
    report(&args, "127.0.0.1".parse().unwrap(), port).await.unwrap()
}

#[tokio::test]
async fn a_server_speaks_first_and_echoes() {
    let port = server(Behaviour::Echo).await;
    let report = client(port, Mode::Banner, 3, 0).await;
    assert_eq!(report["by"]["pod-1"], 3, "{report}");
    let report = client(port, Mode::Echo, 4, 3_000_000).await;
    assert_eq!((&report["ok"], &report["bytes"]), (&json!(4), &json!(12_000_000)), "{report}");
}

#[tokio::test]
async fn half_close_bulk_up_and_bulk_down() {
    let report = client(server(Behaviour::HalfClose).await, Mode::HalfClose, 1, 1_000_001).await;
    assert_eq!((&report["ok"], &report["told"]["from"]), (&json!(1), &json!("pod-1")), "{report}");
    let report = client(server(Behaviour::Sink).await, Mode::Upload, 1, 5_000_000).await;
    assert_eq!(report["ok"], 1, "{report}");
    let port = server(Behaviour::Source(5_000_000)).await;
    let report = client(port, Mode::Download, 2, 5_000_000).await;
    assert_eq!(report["ok"], 2, "{report}");
    let report = client(port, Mode::Download, 1, 6_000_000).await;
    assert!(report["failures"][0].as_str().unwrap().contains("5000000 bytes came instead"), "{report}");
}

#[tokio::test]
async fn many_are_open_at_once_and_failures_are_counted() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let port = server(Behaviour::Echo).await;
    let report = client(port, Mode::Echo, 1000, 100).await;
    assert_eq!((&report["opened"], &report["ok"]), (&json!(1000), &json!(1000)), "{report}");
    // A server of the other kind has no banner, one that is not there does not even accept.
    let report = client(server(Behaviour::Source(3)).await, Mode::Echo, 2, 1).await;
    assert_eq!((&report["opened"], &report["failed"]), (&json!(0), &json!(2)), "{report}");
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let report = client(port, Mode::Banner, 2, 1).await;
    assert_eq!(report["failed"], 2, "{report}");
}

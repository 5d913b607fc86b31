//! gRPC through a Service with `scheme: h2c`: every form of call, statuses and trailers, and each call for itself finds a
//! backend.

use std::collections::BTreeMap;

use weft_tests::cluster::{self, Cluster};
use weft_tests::protocols::{Call, Running, grpc};
use weft_tests::services::{self, UserService};
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{Server, available, scale};
use weft_tests::{Failure, Result};

async fn staged(cluster: &Cluster, ns: &str, replicas: u32) -> Result<Stage> {
    let services = [UserService::grpc("echo", "echo")];
    let stage = Stage::new(cluster, ns, &[Server::grpc("echo", replicas)], &services).await?;
    answers(&stage).await?;
    Ok(stage)
}

/// Waits until a call is answered.
async fn answers(stage: &Stage) -> Result {
    wait::until("a call is answered", seconds(30), async || {
        let call = one(stage, &[]).await?;
        Ok(Seen::when(call.status == Some(0), (), || format!("{call:?}")))
    })
    .await
}

async fn one(stage: &Stage, args: &[&str]) -> Result<Call> {
    let mut calls = grpc(&stage.cluster, stage.client(), &stage.url("echo", ""), args).await?;
    Ok(calls.pop().ok_or("no call was made")?)
}

#[test]
fn every_form_of_call_passes_with_metadata_and_trailers() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-grpc", 2).await?;
        for size in ["10", "100000", "3000000"] {
            for (mode, replies, received) in
                [("unary", 1, 1), ("server", 6, 1), ("client", 1, 6), ("bidi", 6, 6)]
            {
                let args = [
                    "--mode",
                    mode,
                    "--messages",
                    "6",
                    "--size",
                    size,
                    "--metadata",
                    "x-who=me",
                    "--timeout",
                    "20000",
                ];
                let call = one(&stage, &args).await?;
                assert_eq!((call.status, call.replies.len()), (Some(0), replies), "{mode}: {call:?}");
                assert!(call.replies.iter().all(|reply| reply.intact), "{mode} of {size}: {call:?}");
                let numbers: Vec<_> = call.replies.iter().map(|reply| reply.number as usize).collect();
                assert_eq!(numbers, (1..=replies).collect::<Vec<_>>(), "{mode}: out of order");
                let last = call.replies.last().ok_or("no reply")?;
                assert_eq!(last.received_messages, received, "{mode}: {call:?}");
                let metadata = call.received_metadata.clone().unwrap_or_default();
                assert_eq!(metadata.get("x-who").map(String::as_str), Some("me"), "{mode}: {call:?}");
                assert_eq!(metadata.get("te").map(String::as_str), Some("trailers"), "{mode}: {call:?}");
                assert!(call.headers.contains_key("x-weft-node"), "{mode} bypassed the mesh: {call:?}");
                if matches!(mode, "server" | "bidi") {
                    let counted = call.trailers.get("x-lab-replies").map(String::as_str);
                    assert_eq!(counted, Some("6"), "{mode}: the trailers are lost: {call:?}");
                }
            }
        }
        stage.strike().await
    });
}

#[test]
fn failures_keep_their_code_message_and_trailers() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-grpc-status", 1).await?;
        for code in 1..=16 {
            let number = code.to_string();
            let args = [
                "--mode",
                "fail",
                "--code",
                &number,
                "--message",
                "no, since äöü %",
                "--trailer",
                "x-why=a test",
            ];
            let call = one(&stage, &args).await?;
            assert_eq!((call.status, &*call.message), (Some(code), "no, since äöü %"), "{call:?}");
            assert_eq!(call.trailers.get("x-why").map(String::as_str), Some("a test"), "{call:?}");
        }
        stage.strike().await
    });
}

#[test]
fn the_calls_of_one_connection_are_shared_among_the_backends() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-grpc-shares", 3).await?;
        let url = stage.url("echo", "");
        for mode in ["unary", "bidi"] {
            let args = ["--mode", mode, "-n", "150"];
            let mut by = BTreeMap::<String, u32>::new();
            for call in grpc(&cluster, stage.client(), &url, &args).await? {
                assert_eq!(call.status, Some(0), "{call:?}");
                *by.entry(call.pod.unwrap_or_default()).or_default() += 1;
            }
            // Chosen at random among three, 50 each: less than 25 happens once in a hundred thousand runs.
            assert_eq!(by.len(), 3, "{mode}: {by:?}");
            assert!(by.values().all(|calls| *calls >= 25), "{mode}: {by:?}");
        }
        stage.strike().await
    });
}

#[test]
fn a_stream_lasts_while_the_service_changes() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-grpc-stream", 1).await?;
        let url = stage.url("echo", "");
        let args =
            ["grpc", "--url", &url, "--mode", "bidi", "--messages", "10", "--hold", "--timeout", "120000"];
        let stream = Running::start(&cluster, stage.client(), &args, "holding").await?;
        // Another backend, another policy: neither may touch what is under way.
        scale(&cluster, &stage.ns, "echo", 3).await?;
        available(&cluster, &stage.ns, "echo").await?;
        services::ask(&cluster, &stage.ns, "echo", "retry-attempts", Some("2")).await?;
        wait::until("a new backend takes part", seconds(30), async || {
            let calls = grpc(&cluster, stage.client(), &url, &["-n", "20"]).await?;
            let pods: std::collections::BTreeSet<_> =
                calls.iter().filter_map(|call| call.pod.clone()).collect();
            // The one that holds the stream has more to do than the others.
            Ok(Seen::when(pods.len() >= 2, (), || format!("{pods:?}")))
        })
        .await?;
        let call: Call = stream.stop().await?;
        assert_eq!((call.status, call.replies.len()), (Some(0), 10), "{call:?}");
        stage.strike().await
    });
}

#[test]
fn what_the_proxy_answers_itself_is_a_status_of_grpc() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-grpc-empty", 1).await?;
        scale(&cluster, &stage.ns, "echo", 0).await?;
        let call = wait::until("calls are UNAVAILABLE", seconds(30), async || {
            let call = one(&stage, &[]).await?;
            let state = format!("{call:?}");
            Ok::<_, Failure>(Seen::when(call.status == Some(14), call, || state))
        })
        .await?;
        assert!(call.ms < 2000.0, "{call:?}");
        scale(&cluster, &stage.ns, "echo", 1).await?;
        answers(&stage).await?;
        stage.strike().await
    });
}

//! Commands in pods, with their streams.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::Result;
use crate::cluster::Cluster;

/// A pod's place.
#[derive(Debug, Clone)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A command that runs in a pod until it is told to end through its standard input.
pub struct Session {
    process: AttachedProcess,
    stdin: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    stdout: JoinHandle<()>,
    stderr: JoinHandle<()>,
    printed: Text,
    told: Text,
    what: String,
}

/// What came on a stream so far.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The whole lines that begin at `from` or after it, and where the next one will.
    fn lines_from(&self, from: usize) -> (String, usize) {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = text.get(from..).unwrap_or_default();
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        (String::from_utf8_lossy(&rest[..end]).into_owned(), from + end)
    }

    /// Gathers a stream to its end. One that breaks off leaves what came before; the command's status tells the rest.
    async fn gather(self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
        }
    }
}

/// Starts `command` in the only container of `pod`.
pub async fn start(cluster: &Cluster, pod: &PodRef, command: &[String]) -> Result<Session> {
    let params = AttachParams::default()
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .max_stdout_buf_size(1 << 20)
        .max_stderr_buf_size(1 << 20);
    let api: Api<Pod> = cluster.api(&pod.namespace);
    let what = format!("{} in {}/{}", command.join(" "), pod.namespace, pod.name);
    let mut process =
        api.exec(&pod.name, command, &params).await.map_err(|error| format!("{what}: {error}"))?;
    let stdin = Box::new(process.stdin().ok_or("no standard input")?);
    let (printed, told) = (Text::default(), Text::default());
    let stdout = tokio::spawn(printed.clone().gather(process.stdout()));
    let stderr = tokio::spawn(told.clone().gather(process.stderr()));
    Ok(Session { process, stdin, stdout, stderr, printed, told, what })
}

impl Session {
    /// Tells the command to end.
    pub async fn tell_to_end(&mut self) -> Result {
        self.stdin.write_all(b"\n").await?;
        self.stdin.flush().await?;
        Ok(())
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        self.printed.so_far()
    }

    /// The whole lines that it printed from the byte `from` on, and from which one on to ask the next time.
    pub fn printed_from(&self, from: usize) -> (String, usize) {
        self.printed.lines_from(from)
    }

    /// What it told on standard error so far.
    pub fn told(&self) -> String {
        self.told.so_far()
    }

    /// What it printed, once it has ended; an error when it failed.
    pub async fn output(mut self) -> Result<String> {
        let status = self.process.take_status().ok_or("the status was taken")?.await;
        // Both readers end with the process' task.
        drop(self.stdin);
        self.process.join().await?;
        self.stdout.await?;
        self.stderr.await?;
        let (stdout, stderr) = (self.printed.so_far(), self.told.so_far());
        match status {
            Some(status) if status.status.as_deref() == Some("Success") => Ok(stdout),
            status => {
                let message =
                    status.and_then(|status| status.message).unwrap_or_else(|| "cut off".to_owned());
                Err(format!("{}: {message}\n{stdout}{stderr}", self.what).into())
            }
        }
    }
}

/// Runs `command` to its end and gives what it printed.
pub async fn run(cluster: &Cluster, pod: &PodRef, command: &[&str]) -> Result<String> {
    let command: Vec<_> = command.iter().map(ToString::to_string).collect();
    start(cluster, pod, &command).await?.output().await
}

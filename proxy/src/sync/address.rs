//! Where the operator's Service is. What DNS said last is used while it is silent: on the node of a DNS pod that is lost every second
//! question may go there, and the proxies are to hear of just that.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

/// How long DNS may take when it has answered before.
const ANSWER: Duration = Duration::from_millis(300);
const HTTPS: u16 = 443;

/// Connects to it; clones share what they know.
#[derive(Debug, Clone, Default)]
pub(super) struct Connector {
    known: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Connector {
    async fn connect(self, to: Uri) -> io::Result<TokioIo<TcpStream>> {
        let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = to.port_u16().unwrap_or(HTTPS);
        let asked = async move { Ok(lookup_host((host, port)).await?.collect()) };
        let stream = TcpStream::connect(&*self.addresses(asked).await?).await?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }

    /// What is `asked` of DNS, or what it said before.
    async fn addresses(
        &self,
        asked: impl Future<Output = io::Result<Vec<SocketAddr>>>,
    ) -> io::Result<Vec<SocketAddr>> {
        let known = self.known.lock().clone();
        let found = if known.is_empty() {
            asked.await?
        } else {
            timeout(ANSWER, asked)
                .await
                .ok()
                .and_then(Result::ok)
                .filter(|found| !found.is_empty())
                .unwrap_or(known)
        };
        self.known.lock().clone_from(&found);
        Ok(found)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn at(last: u8) -> Vec<SocketAddr> {
        vec![([10, 96, 0, last], 9443).into()]
    }

    #[tokio::test(start_paused = true)]
    async fn what_dns_said_last_is_used_while_it_is_silent_or_fails() {
        let connector = Connector::default();
        let fails = || ready(Err(io::ErrorKind::TimedOut.into()));
        assert!(connector.addresses(fails()).await.is_err(), "nothing is known yet");
        assert!(timeout(ANSWER * 3, connector.addresses(pending())).await.is_err(), "it is waited for");
        for (asked, found) in [(1, 1), (2, 2)] {
            assert_eq!(connector.addresses(ready(Ok(at(asked)))).await.unwrap(), at(found));
        }
        assert_eq!(connector.addresses(pending()).await.unwrap(), at(2));
        assert_eq!(connector.addresses(fails()).await.unwrap(), at(2));
        assert_eq!(connector.addresses(ready(Ok(Vec::new()))).await.unwrap(), at(2));
        assert_eq!(connector.addresses(ready(Ok(at(3)))).await.unwrap(), at(3));
    }
}

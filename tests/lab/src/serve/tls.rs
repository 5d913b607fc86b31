//! The server's TLS.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Origin, Server};
use crate::Failure;

/// Presents `certificate` (PEM) and speaks h2 and HTTP/1.1 as the client prefers.
pub(super) fn acceptor(certificate: &[u8], key: &[u8]) -> Result<TlsAcceptor, Failure> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub(super) async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: Arc<Server>) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (acceptor, server) = (acceptor.clone(), Arc::clone(&server));
        tokio::spawn(async move {
            match acceptor.accept(stream).await {
                Ok(stream) => {
                    let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
                    server.converse(stream, Origin { port, peer, tls_name: Some(name) }).await;
                }
                Err(error) => eprintln!("weft-lab: TLS with {peer}: {error}"),
            }
        });
    }
}

//! The UDP server: sends every datagram back with its name before it, once or as a stream. It ends at once on SIGTERM.

use std::net::Ipv6Addr;
use std::sync::Arc;

use tokio::net::UdpSocket;

use crate::identity::Identity;
use crate::{Failure, stop};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Ports to answer on.
    #[arg(long, value_delimiter = ',', default_value = "5300")]
    port: Vec<u16>,
    /// Ports to answer on with a stream of datagrams instead of one.
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    stream_port: Vec<u16>,
    /// How many a stream has.
    #[arg(long, value_name = "N", default_value_t = 10)]
    stream: u32,
    #[command(flatten)]
    identity: Identity,
}

/// Serves until SIGTERM.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let name: Arc<str> = args.identity.name().into();
    let ports = args.port.iter().map(|port| (*port, 1));
    for (port, replies) in ports.chain(args.stream_port.iter().map(|port| (*port, args.stream))) {
        // Dual-stack: IPv4 comes mapped.
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
        tokio::spawn(answer(socket, replies, Arc::clone(&name)));
    }
    eprintln!("weft-lab: {name} answers on {:?}, with streams on {:?}", args.port, args.stream_port);
    stop::terminated().await?;
    std::process::exit(0)
}

pub(super) async fn answer(socket: UdpSocket, replies: u32, name: Arc<str>) {
    let mut buffer = vec![0; 65536];
    loop {
        // An error is that of an earlier datagram whose source is gone.
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else { continue };
        for number in 1..=replies {
            let mut reply = format!("{name} {number}/{replies} ").into_bytes();
            reply.extend_from_slice(&buffer[..length]);
            let _ = socket.send_to(&reply, source).await;
        }
    }
}

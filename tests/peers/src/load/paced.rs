//! Requests at a fixed rate: each leaves at its time whatever became of those before. A thread for each connection, because
//! the runtime's clock ticks in milliseconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::http1::get;
use crate::Result;

/// Microseconds until each answer was there, from the time its request should have left; from the time it left where only
/// this machine's sleep was late, which no proxy can help.
pub(crate) fn run(
    address: SocketAddr,
    host: &str,
    connections: u32,
    rate: u32,
    lasting: Duration,
) -> Result<Vec<u32>> {
    let every = Duration::from_secs(1) * connections / rate;
    let began = Instant::now() + Duration::from_millis(50);
    let client = |number: u32| {
        let host = host.to_owned();
        let first = began + every * number / connections;
        thread::spawn(move || one(address, &host, first, every, lasting).map_err(|error| error.to_string()))
    };
    let clients: Vec<_> = (0..connections).map(client).collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.join().map_err(|_| "a client panicked")??);
    }
    Ok(all)
}

fn one(
    address: SocketAddr,
    host: &str,
    first: Instant,
    every: Duration,
    lasting: Duration,
) -> Result<Vec<u32>> {
    let request = get("/", host, "");
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut took, mut buffer) = (Vec::new(), [0; 8192]);
    let mut due = first;
    while due < first + lasting {
        let mut from = due;
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
            from = Instant::now();
        }
        stream.write_all(&request)?;
        let mut held = 0;
        loop {
            let n = stream.read(&mut buffer[held..])?;
            held += n;
            let answer = &buffer[..held];
            if n == 0 || !answer.starts_with(b"HTTP/1.1 200") {
                return Err(String::from_utf8_lossy(answer).into());
            }
            if answer.ends_with(b"benchmark\n") {
                break;
            }
        }
        took.push(u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX));
        due += every;
    }
    Ok(took)
}

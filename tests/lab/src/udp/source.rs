//! One source: a socket of its own that sends datagrams one after the other.
//!
//! A datagram is 8 hexadecimal digits of the source's number, 8 of its own, a space and filling; an answer is
//! `<name> <how manieth>/<of how many> ` and the datagram.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bulk::pattern;

/// Numbers and a space: no datagram is smaller.
const SMALLEST: usize = 17;

/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);

/// What each source does.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) to: SocketAddr,
    pub(super) count: u64,
    pub(super) size: usize,
    pub(super) replies: u32,
    pub(super) every: Duration,
    pub(super) patience: Duration,
    pub(super) began: Instant,
}

pub(super) struct Source {
    number: u32,
    plan: Plan,
    socket: UdpSocket,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) late: u64,
    pub(super) wrong: u64,
    pub(super) refused: u64,
    pub(super) last_error: Option<String>,
    pub(super) last_lost_at: Option<Duration>,
    pub(super) by: BTreeMap<String, u64>,
    pub(super) last_by: Option<String>,
    pub(super) moves: u64,
    pub(super) slowest: Duration,
}

impl Source {
    pub(super) async fn open(number: u32, plan: Plan) -> std::io::Result<Self> {
        let any: SocketAddr = if plan.to.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(plan.to).await?;
        let (sent, received, lost, late, wrong, refused, moves) = Default::default();
        let (last_error, last_lost_at, last_by) = Default::default();
        Ok(Self {
            number,
            plan,
            socket,
            sent,
            received,
            lost,
            late,
            wrong,
            refused,
            last_error,
            last_lost_at,
            by: BTreeMap::new(),
            last_by,
            moves,
            slowest: Duration::ZERO,
        })
    }

    /// Sends and counts until it has sent enough, or is told to end.
    pub(super) async fn run(mut self, ended: watch::Receiver<bool>) -> Self {
        let mut told = self.plan.began;
        for sequence in 0..self.plan.count {
            if *ended.borrow() {
                break;
            }
            let next = Instant::now() + self.plan.every;
            self.ask(sequence).await;
            if self.number == 0 && told.elapsed() >= TELL {
                told = Instant::now();
                let at = self.plan.began.elapsed().as_secs_f64();
                eprintln!("{at:>6.1} s  first source: {} sent, {} lost", self.sent, self.lost);
            }
            tokio::time::sleep_until(next).await;
        }
        self
    }

    async fn ask(&mut self, sequence: u64) {
        let datagram = self.datagram(sequence);
        let began = Instant::now();
        self.sent += 1;
        if let Err(error) = self.socket.send(&datagram).await {
            // Also the ICMP error that an earlier one met: this one did not leave.
            self.refuse(&error);
        }
        let mut missing: BTreeSet<_> = (1..=self.plan.replies).collect();
        let mut buffer = vec![0; 65536];
        let deadline = began + self.plan.patience;
        while !missing.is_empty() {
            match tokio::time::timeout_at(deadline, self.socket.recv(&mut buffer)).await {
                Ok(Ok(length)) => match parse(&buffer[..length]) {
                    Some(answer) if answer.datagram == datagram => {
                        if missing.remove(&answer.number) {
                            self.count(answer.name);
                        } else {
                            self.late += 1;
                        }
                    }
                    // To an earlier one of ours.
                    Some(answer) if answer.datagram.get(..8) == datagram.get(..8) => self.late += 1,
                    _ => self.wrong += 1,
                },
                Ok(Err(error)) => {
                    self.refuse(&error);
                    // Nobody is there: the answer will not come, but the next datagram must not be sent at once.
                    tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_millis(20))).await;
                }
                Err(_) => break,
            }
        }
        if missing.is_empty() {
            self.slowest = self.slowest.max(began.elapsed());
        } else {
            self.lost += missing.len() as u64;
            self.last_lost_at = Some(began - self.plan.began);
        }
    }

    fn datagram(&self, sequence: u64) -> Vec<u8> {
        let mut datagram = format!("{:08x}{sequence:08x} ", self.number).into_bytes();
        let filling = self.plan.size.saturating_sub(SMALLEST);
        if filling > 0 {
            datagram.extend_from_slice(pattern(sequence, filling as u64));
        }
        datagram
    }

    fn count(&mut self, name: String) {
        self.received += 1;
        if self.last_by.as_ref().is_some_and(|last| *last != name) {
            self.moves += 1;
        }
        *self.by.entry(name.clone()).or_default() += 1;
        self.last_by = Some(name);
    }

    fn refuse(&mut self, error: &std::io::Error) {
        self.refused += 1;
        self.last_error = Some(error.to_string());
    }
}

struct Reply<'a> {
    name: String,
    number: u32,
    datagram: &'a [u8],
}

fn parse(bytes: &[u8]) -> Option<Reply<'_>> {
    let mut parts = bytes.splitn(3, |byte| *byte == b' ');
    let (name, position, datagram) = (parts.next()?, parts.next()?, parts.next()?);
    let (number, _) = std::str::from_utf8(position).ok()?.split_once('/')?;
    Some(Reply { name: String::from_utf8(name.to_vec()).ok()?, number: number.parse().ok()?, datagram })
}

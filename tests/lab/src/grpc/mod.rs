//! gRPC with tonic: a server with every form of call, and its client.

pub(crate) mod client;
pub(crate) mod serve;

/// Generated from `proto/weft/lab/v1/echo.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub(crate) mod v1 {
    tonic::include_proto!("weft.lab.v1");
}

/// More than any test sends in a message.
const MESSAGE_LIMIT: usize = 64 << 20;

#[cfg(test)]
mod tests;

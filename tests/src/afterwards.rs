//! What a test must put right again whatever came of it, since the tests that follow share the cluster.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use crate::Result;

/// Runs `body` and then `restore`, even when `body` fails or panics. Of two failures the first is told.
pub async fn afterwards(body: impl Future<Output = Result>, restore: impl Future<Output = Result>) -> Result {
    let outcome = AssertUnwindSafe(body).catch_unwind().await;
    let restored = restore.await;
    outcome.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))?;
    restored
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_must_be_restored_is_even_after_a_panic() {
        let restored = Cell::new(0);
        let restore = async || {
            restored.set(restored.get() + 1);
            Ok(())
        };
        afterwards(async { Ok(()) }, restore()).await.unwrap();
        let failed = afterwards(async { Err("broken".into()) }, restore()).await;
        assert_eq!(failed.unwrap_err().to_string(), "broken");
        let panicked =
            AssertUnwindSafe(afterwards(async { panic!("wrong") }, restore())).catch_unwind().await;
        assert!(panicked.is_err());
        assert_eq!(restored.get(), 3);
    }
}

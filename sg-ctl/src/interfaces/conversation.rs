//! A conversation with the kernel over rtnetlink.

use futures_util::TryStream;
use futures_util::TryStreamExt as _;
use rtnetlink::Handle;

use super::error::{Error, Result};

/// Runs `questions` with a netlink socket of the namespace that this thread is in.
pub(crate) fn converse<T>(questions: impl AsyncFnOnce(Handle) -> T) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|source| Error::system("start an event loop", source))?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| Error::system("open a netlink socket", source))?;
        tokio::spawn(connection);
        Ok(questions(handle).await)
    })
}

/// Everything that the kernel answers to one question.
pub(super) async fn all<T>(
    answers: impl TryStream<Ok = T, Error = rtnetlink::Error>,
    doing: &'static str,
) -> Result<Vec<T>> {
    let answers = answers.try_collect().await;
    answers.map_err(|source| Error::Netlink { doing, source })
}

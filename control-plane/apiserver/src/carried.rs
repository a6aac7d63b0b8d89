//! Work that comes to its end whoever waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A future that is polled where it stands, and that a task of its own carries on with when it is dropped before its
/// end. A task from the beginning would do the same, at the price of a wake-up of another thread for each write.
pub(crate) struct Carried<F: Future + Send + 'static>(Option<Pin<Box<F>>>)
where
    F::Output: Send + 'static;

impl<F: Future + Send + 'static> Carried<F>
where
    F::Output: Send + 'static,
{
    pub(crate) fn new(work: F) -> Self {
        Carried(Some(Box::pin(work)))
    }
}

impl<F: Future + Send + 'static> Future for Carried<F>
where
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Pinned is what is in the box.
        let this = self.get_mut();
        // Taken out meanwhile: what panics is not carried on with.
        let Some(mut work) = this.0.take() else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            this.0 = Some(work);
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Carried<F>
where
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_goes_on() {
        let (go, begins) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let mut work = Box::pin(Carried::new(async move {
            let _ = begins.await;
            let _ = done.send("done");
        }));
        assert!(futures_util::poll!(&mut work).is_pending());
        drop(work);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok("done"));
    }

    #[tokio::test]
    async fn what_came_to_its_end_is_over() {
        let mut times = 0;
        let counted = &mut times;
        *counted += Carried::new(async { 1 }).await;
        assert_eq!(times, 1);
        let panics = tokio::spawn(Carried::new(async { panic!("on purpose") }));
        assert!(panics.await.unwrap_err().is_panic());
    }
}

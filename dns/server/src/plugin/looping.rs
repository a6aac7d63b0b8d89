//! `loop`: finds out whether a forwarded question comes back to this server. CoreDNS ends its process when one
//! does; here such questions are refused instead, the loop is told loudly, and `ready` says no: names that need no
//! upstream go on being answered.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;
use tokio::task::JoinHandle;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Failure;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::message::Transport;
use crate::names;

/// The probe passes once on its way out; more often means that it came back.
const SEEN_MAX: u32 = 1;

/// A found loop is looked at again after this: what caused it may have been mended.
const AGAIN: Duration = Duration::from_secs(60);

/// What the probes of a plugin share with it.
struct State {
    zone: Name,
    /// The block's name in metrics: probes are counted there as others' questions are.
    server: Arc<str>,
    probe: Mutex<Name>,
    seen: AtomicU32,
    found: AtomicBool,
}

struct Loop {
    state: Arc<State>,
    listening: Arc<tokio::sync::watch::Sender<bool>>,
    chain: Arc<OnceLock<Weak<[Arc<dyn Plugin>]>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Reads `loop`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.exactly::<0>()?;
    line.no_block()?;
    let zone = setup.zones.first().cloned().unwrap_or_else(Name::root);
    Ok(Some(Arc::new(Loop {
        state: Arc::new(State {
            probe: Mutex::new(random_name(&zone)),
            server: Arc::clone(setup.server),
            zone,
            seen: AtomicU32::new(0),
            found: AtomicBool::new(false),
        }),
        listening: Arc::clone(&setup.draft.listening),
        chain: Arc::clone(&setup.draft.chain),
        task: Mutex::new(None),
    })))
}

fn random_name(zone: &Name) -> Name {
    let labels = format!("{}.{}", fastrand::u64(..), fastrand::u64(..));
    names::parse(&labels)
        .and_then(|name| name.append_domain(zone).map_err(|error| error.to_string()))
        .unwrap_or_else(|_| zone.clone())
}

impl Plugin for Loop {
    fn name(&self) -> &'static str {
        "loop"
    }

    fn fast(&self) -> crate::fast::Fast {
        crate::fast::Fast::Passes
    }

    fn ready(&self) -> bool {
        !self.state.found.load(Ordering::Relaxed)
    }

    fn start(&self) {
        let (state, chain) = (Arc::clone(&self.state), Arc::clone(&self.chain));
        let mut listening = self.listening.subscribe();
        let task = tokio::spawn(async move {
            // A probe can come back only when somebody listens. Where nobody ever will, the plugin is dropped.
            if listening.wait_for(|listening| *listening).await.is_err() {
                return;
            }
            loop {
                probe(&state, &chain).await;
                if !state.found.load(Ordering::Relaxed) {
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
        let mut kept = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = kept.replace(task) {
            before.abort();
        }
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let state = &self.state;
        if request.kind() == RecordType::HINFO {
            let probe = state.probe.lock().unwrap_or_else(PoisonError::into_inner);
            let is_probe = *probe == *request.name();
            drop(probe);
            if is_probe && state.seen.fetch_add(1, Ordering::Relaxed) >= SEEN_MAX {
                let from = request.client;
                if !state.found.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        zone = %state.zone,
                        %from,
                        "loop: a question that was forwarded came back; point `forward` at servers that do not \
                         ask this one (often /etc/resolv.conf names 127.0.0.53 or this server's own address)"
                    );
                }
                return Box::pin(async { Err(looping()) });
            }
            if is_probe {
                return Box::pin(unheard(request, next));
            }
        }
        if state.found.load(Ordering::Relaxed) {
            // Plugins that know names themselves stand in front of this one: only what would be forwarded gets here.
            return Box::pin(async { Err(looping()) });
        }
        next.serve(request)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

/// Passes the probe on its way out. That no upstream takes it is nobody's failed question: it is told as what it
/// is, once, where `errors` would log a name that no client ever asked for.
async fn unheard(request: &mut Request, next: Next<'_>) -> Served {
    let reply = request.reply(ResponseCode::ServFail);
    next.serve(request).await.or_else(|failure| {
        tracing::warn!(
            cause = %failure.cause,
            "loop: no upstream took the probe, so nobody knows yet whether questions come back; names that need \
             no upstream are answered"
        );
        Ok(Outcome::answer("loop", reply))
    })
}

fn looping() -> Failure {
    Failure::code(
        "loop",
        ResponseCode::ServFail,
        "questions that are forwarded come back to this server",
    )
}

/// Sends a question that nobody else asks down the chain and counts how often it passes.
async fn probe(state: &State, chain: &OnceLock<Weak<[Arc<dyn Plugin>]>>) {
    let name = random_name(&state.zone);
    name.clone_into(&mut state.probe.lock().unwrap_or_else(PoisonError::into_inner));
    state.seen.store(0, Ordering::Relaxed);
    state.found.store(false, Ordering::Relaxed);
    let Some(chain) = chain.get().and_then(Weak::upgrade) else {
        return;
    };
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, RecordType::HINFO));
    let here = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let mut request = Request::new(message, bytes::Bytes::new(), here, here, Transport::Udp);
    request.server = Arc::clone(&state.server);
    let served = Next::first(&chain).serve(&mut request);
    let _ = tokio::time::timeout(Duration::from_secs(10), served).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(chain: &Arc<[Arc<dyn Plugin>]>, name: &Name) -> Served {
        let mut message = Message::query();
        message.add_query(Query::query(name.clone(), RecordType::HINFO));
        let here = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let mut request = Request::new(message, bytes::Bytes::new(), here, here, Transport::Udp);
        Next::first(chain).serve(&mut request).await
    }

    #[tokio::test]
    async fn a_probe_that_no_upstream_takes_is_nobodys_failure() {
        let probe = random_name(&Name::root());
        let plugin = Loop {
            state: Arc::new(State {
                zone: Name::root(),
                server: Arc::from(""),
                probe: Mutex::new(probe.clone()),
                seen: AtomicU32::new(0),
                found: AtomicBool::new(false),
            }),
            listening: Arc::default(),
            chain: Arc::default(),
            task: Mutex::new(None),
        };
        // Nothing follows, so that whatever gets past the plugin fails.
        let chain: Arc<[Arc<dyn Plugin>]> = Arc::new([Arc::new(plugin)]);
        let stranger = names::parse("host.example").unwrap();
        assert!(ask(&chain, &stranger).await.is_err());
        let outcome = ask(&chain, &probe).await.unwrap();
        let answer = outcome.message().unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        let again = ask(&chain, &probe).await.unwrap_err();
        assert!(again.cause.contains("come back"), "{}", again.cause);
    }
}

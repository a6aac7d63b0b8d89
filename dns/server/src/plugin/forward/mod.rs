//! `forward`: asks other servers. An upstream that fails is probed until it answers again, and passed over
//! meanwhile; equal questions that are on their way at the same time are one question upstream.

mod config;
pub(crate) mod connection;
mod doh;
mod flight;
mod hostname;
mod tls;
pub(crate) mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::opt::EdnsCode;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use self::flight::Answer;
use self::flight::Flights;
use self::flight::Told;
use self::upstream::How;
use self::upstream::Upstream;
use super::Next;
use super::Plugin;
use super::dnstap::Taps;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::message::Failure;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::message::Transport;
use crate::metrics::Series;

/// All attempts for one question together.
const DEADLINE: Duration = Duration::from_secs(5);

/// Times that the upstreams are asked one after the other while questions to them get lost.
const ROUNDS: usize = 3;

/// In what order upstreams are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Random,
    RoundRobin,
    Sequential,
}

/// One `forward` line.
struct Group {
    from: Vec<Name>,
    except: Vec<Name>,
    upstreams: Vec<Arc<Upstream>>,
    policy: Policy,
    turn: AtomicUsize,
    /// Questions upstream at a time.
    permits: Arc<Semaphore>,
    max_concurrent: Option<usize>,
    /// Upstreams that are asked for one query at most, if that is bounded.
    attempts_max: Option<usize>,
    force_tcp: bool,
    prefer_udp: bool,
    failfast: bool,
    /// Codes after which another upstream is asked.
    failover: Vec<ResponseCode>,
    /// Codes after which the next line, or the next plugin, is asked.
    next: Vec<ResponseCode>,
    next_on_nodata: bool,
    rejected: Arc<Series>,
    broken: Arc<Series>,
    flights: Flights,
    /// Who wants copies of what is asked and told.
    taps: Taps,
}

struct Forward {
    groups: Vec<Arc<Group>>,
}

/// Reads `forward FROM TO... { OPTIONS }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut groups = Vec::new();
    for line in setup.lines {
        groups.push(Arc::new(config::group(setup, line)?));
    }
    Ok(Some(Arc::new(Forward { groups })))
}

impl Plugin for Forward {
    fn name(&self) -> &'static str {
        "forward"
    }

    fn fast(&self) -> crate::fast::Fast {
        crate::fast::Fast::Passes
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let groups = self.groups.iter();
            let serving: Vec<&Arc<Group>> = groups
                .filter(|group| group.serves(request.name()))
                .collect();
            let last = serving.len().saturating_sub(1);
            for (at, group) in serving.into_iter().enumerate() {
                let told = group.ask(request).await?;
                // Handed on to another line, if there is one: an answer is better than none.
                if group.hands_on(&told.message) && at < last {
                    continue;
                }
                if request.described {
                    let upstream = told.upstream.to_string();
                    request.metadata.insert("forward/upstream", upstream);
                }
                return Ok(Outcome::answer("forward", told.message));
            }
            next.serve(request).await
        })
    }
}

impl Group {
    fn serves(&self, name: &Name) -> bool {
        matching(&self.from, name).is_some() && matching(&self.except, name).is_none()
    }

    fn hands_on(&self, message: &Message) -> bool {
        let code = message.metadata.response_code;
        let nodata = code == ResponseCode::NoError && message.answers.is_empty();
        self.next.contains(&code) || (self.next_on_nodata && nodata)
    }

    async fn ask(self: &Arc<Self>, request: &Request) -> Answer {
        let how = match request.transport {
            _ if self.force_tcp => How::Stream,
            Transport::Udp => How::Datagram,
            _ if self.prefer_udp => How::Datagram,
            Transport::Tcp | Transport::Tls | Transport::Https => How::Stream,
        };
        let query = upstream_query(request);
        let client = request.client;
        let mut told = match flight::key(&query, how) {
            Some(key) => {
                let begin = || {
                    // Before anything is set in motion: what is refused must cost little.
                    let permit = self.permit()?;
                    let group = Arc::clone(self);
                    Ok(async move { group.exchange(&query, how, client, permit).await })
                };
                self.flights.join(key, begin).await?
            }
            None => {
                let permit = self.permit()?;
                Box::pin(self.exchange(&query, how, client, permit)).await?
            }
        };
        told.message.metadata.id = request.message.metadata.id;
        // The client's own case, whatever the upstream or an equal question's client wrote.
        told.message.queries.clone_from(&request.message.queries);
        Ok(told)
    }

    /// A place among the questions upstream.
    fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            self.rejected.increment();
            let most = self.max_concurrent.unwrap_or(config::CONCURRENT_MAX);
            Failure::code(
                "forward",
                ResponseCode::Refused,
                format!("concurrent queries exceeded maximum {most}"),
            )
        })
    }

    async fn exchange(
        &self,
        query: &Message,
        how: How,
        client: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        let mut cause = "no healthy proxies".to_owned();
        let mut refused = None;
        let mut attempts = self.attempts_max.unwrap_or(usize::MAX);
        let (mut order, mut rounds, mut lost) = (self.order().into_iter(), 1, false);
        loop {
            let Some(upstream) = order.next() else {
                // A question or an answer may have got lost on its way; what fails otherwise fails again.
                if !std::mem::take(&mut lost) || refused.is_some() || rounds >= ROUNDS {
                    break;
                }
                rounds += 1;
                order = self.order().into_iter();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || attempts == 0 {
                break;
            }
            attempts -= 1;
            let asked = SystemTime::now();
            let mut answer = self.one(&upstream, query, how, left).await;
            if let Ok(answer) = &mut answer {
                // As it was asked: what is told of both is told apart from others by it.
                answer.metadata.id = query.metadata.id;
            }
            if !self.taps.is_empty() {
                let ends = (client, upstream.address());
                let (transport, told) = (upstream.transport(how), answer.as_ref().ok());
                self.taps.forwarded(ends, transport, (query, asked), told);
            }
            let told = |message| Told {
                message,
                upstream: Arc::clone(upstream.name()),
            };
            match answer {
                Ok(message) if self.failover.contains(&message.metadata.response_code) => {
                    refused = Some(told(message));
                }
                Ok(message) => return Ok(told(message)),
                Err(error) => {
                    lost |= matches!(error, upstream::ExchangeError::Timeout);
                    cause = upstream.failed(how, &error);
                    Upstream::probe(&upstream);
                }
            }
        }
        refused.ok_or_else(|| Failure::new("forward", cause))
    }

    async fn one(
        &self,
        upstream: &Arc<Upstream>,
        query: &Message,
        how: How,
        left: Duration,
    ) -> Result<Message, upstream::ExchangeError> {
        let asking = tokio::time::timeout(left, async {
            let message = upstream.exchange(query, how).await?;
            if message.metadata.truncation && how == How::Datagram && self.prefer_udp {
                return upstream.exchange(query, How::Stream).await;
            }
            Ok(message)
        });
        asking
            .await
            .unwrap_or(Err(upstream::ExchangeError::Timeout))
    }

    /// The upstreams to ask, best first: those that are up, in the policy's order. If none is, one at random,
    /// since probes may be lost where questions are not.
    fn order(&self) -> Vec<Arc<Upstream>> {
        let mut order: Vec<Arc<Upstream>> = self.upstreams.clone();
        match self.policy {
            Policy::Random => fastrand::shuffle(&mut order),
            Policy::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let start = turn.checked_rem(order.len()).unwrap_or_default();
                order.rotate_left(start);
            }
            Policy::Sequential => {}
        }
        let up: Vec<Arc<Upstream>> = order.iter().filter(|one| !one.down()).cloned().collect();
        if !up.is_empty() {
            return up;
        }
        self.broken.increment();
        if self.failfast {
            return Vec::new();
        }
        order.truncate(1);
        order
    }
}

/// The query as it is sent on: without what is between the client and us alone.
fn upstream_query(request: &Request) -> Message {
    let mut query = request.message.clone();
    query.signature = None;
    if let Some(edns) = &mut query.edns {
        for hop in [EdnsCode::Cookie, EdnsCode::Padding, EdnsCode::Keepalive] {
            edns.options_mut().remove(hop);
        }
        if !request.asks_nsid {
            edns.options_mut().remove(EdnsCode::NSID);
        }
    }
    query.answers.clear();
    query.authorities.clear();
    query.additionals.clear();
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// What a question that waits for a silent upstream takes, in octets: thousands may wait.
    #[test]
    fn a_question_that_waits_is_small() {
        type Asked = (&'static Message, How, SocketAddr);
        let ask =
            size(|(group, request): (&'static Arc<Group>, &'static Request)| group.ask(request));
        let exchange = size(
            |(group, (query, how, client), permit): (
                &'static Group,
                Asked,
                OwnedSemaphorePermit,
            )| { group.exchange(query, how, client, permit) },
        );
        assert!(ask <= 1024, "{ask}");
        assert!(exchange <= 2048, "{exchange}");
        let attempt = upstream::size_of_attempt();
        assert!(attempt.iter().all(|size| *size <= 1024), "{attempt:?}");
    }
}

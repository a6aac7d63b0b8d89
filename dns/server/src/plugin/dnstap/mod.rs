//! `dnstap`: copies of queries and answers for observers (dnstap.info), over Frame Streams on a socket. What
//! `forward` of the same block asks and is told is copied too.

mod config;
mod frame;
mod outlet;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::config::End;
use self::frame::Event;
use self::frame::Kind;
use self::outlet::Crowd;
use self::outlet::Frame;
use self::outlet::Observer;
use self::outlet::Place;
use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Metadata;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::message::Transport;

/// Frames that wait for the observer; beyond these they are dropped, since answers never wait for him.
const QUEUE: usize = 10_000;

/// Lost frames are told of this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Where one line sends copies, and what stands in them.
struct Tap {
    outlet: Outlet,
    /// Messages whole, not only who, when and how.
    full: bool,
    identity: String,
    version: String,
    /// With placeholders of metadata: `{/forward/upstream}`.
    extra: String,
    told: Mutex<Option<Instant>>,
}

enum Outlet {
    Queue(mpsc::Sender<Frame>),
    Crowd(Arc<Crowd>),
}

/// All taps of a block. Cheap to clone.
#[derive(Clone, Default)]
pub struct Taps(Arc<[Tap]>);

/// What is started when the chain goes into service.
enum Job {
    Send(Observer, mpsc::Receiver<Frame>, Option<usize>),
    Listen(Place, Arc<Crowd>),
}

struct Dnstap {
    taps: Taps,
    jobs: Mutex<Vec<Job>>,
    /// Those that listen; those that send end when the taps are dropped.
    listening: Mutex<Vec<JoinHandle<()>>>,
    /// Turns true when nothing more comes. Whoever tells an observer so listens to it until that is done.
    ended: watch::Sender<bool>,
}

/// Reads `dnstap [listen] SOCKET [full] [WRITEBUFFER] [QUEUE] { OPTIONS }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let (mut taps, mut jobs) = (Vec::new(), Vec::new());
    for line in setup.lines {
        let read = config::line(setup, line)?;
        let outlet = match read.end {
            End::Connects {
                observer,
                buffer,
                queue,
            } => {
                let (frames, waiting) = mpsc::channel(queue);
                jobs.push(Job::Send(observer, waiting, buffer));
                Outlet::Queue(frames)
            }
            End::Listens(place) => {
                let crowd: Arc<Crowd> = Arc::default();
                jobs.push(Job::Listen(place, Arc::clone(&crowd)));
                Outlet::Crowd(crowd)
            }
        };
        taps.push(Tap {
            outlet,
            full: read.full,
            identity: read.identity,
            version: read.version,
            extra: read.extra,
            told: Mutex::default(),
        });
    }
    let taps = Taps(taps.into());
    setup.draft.taps = taps.clone();
    Ok(Some(Arc::new(Dnstap {
        taps,
        jobs: Mutex::new(jobs),
        listening: Mutex::default(),
        ended: watch::Sender::new(false),
    })))
}

impl Plugin for Dnstap {
    fn name(&self) -> &'static str {
        "dnstap"
    }

    fn start(&self) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for job in jobs.drain(..) {
            match job {
                Job::Send(observer, waiting, buffer) => {
                    let ended = self.ended.subscribe();
                    tokio::spawn(outlet::send(Arc::new(observer), waiting, buffer, ended));
                }
                Job::Listen(place, crowd) => {
                    listening.push(tokio::spawn(outlet::listen(
                        place,
                        crowd,
                        self.ended.clone(),
                    )));
                }
            }
        }
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        self.ended.send_replace(true);
        Box::pin(self.ended.closed())
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let asked = SystemTime::now();
            let event = |kind, response_at| Event {
                kind,
                asker: request.client,
                asked: request.local,
                transport: request.transport,
                query_at: asked,
                response_at,
                octets: None,
            };
            let (query, mut response) = (
                event(Kind::ClientQuery, None),
                event(Kind::ClientResponse, None),
            );
            self.taps
                .tell(query, &request.metadata, || Some(request.raw.to_vec()));
            let served = next.serve(request).await;
            let answer = match &served {
                Ok(Outcome::Answer(response)) => Some(response.message.clone()),
                Ok(Outcome::Stream(_) | Outcome::Silence(_)) => None,
                // As the server will answer for whoever failed.
                Err(failure) => Some(request.reply(failure.code)),
            };
            if let Some(answer) = answer {
                response.response_at = Some(SystemTime::now());
                self.taps
                    .tell(response, &request.metadata, || answer.to_vec().ok());
            }
            served
        })
    }
}

impl Drop for Dnstap {
    fn drop(&mut self) {
        let listening = self
            .listening
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        listening.drain(..).for_each(|task| task.abort());
    }
}

impl Taps {
    /// True where nobody wants copies.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies a question to an upstream and its answer, on behalf of a client.
    pub(super) fn forwarded(
        &self,
        (client, upstream): (SocketAddr, SocketAddr),
        transport: Transport,
        query: (&Message, SystemTime),
        answer: Option<&Message>,
    ) {
        let known = Metadata::from([("forward/upstream", upstream.to_string())]);
        let event = |kind, response_at| Event {
            kind,
            asker: client,
            asked: upstream,
            transport,
            query_at: query.1,
            response_at,
            octets: None,
        };
        self.tell(event(Kind::ForwarderQuery, None), &known, || {
            query.0.to_vec().ok()
        });
        if let Some(answer) = answer {
            let now = Some(SystemTime::now());
            self.tell(event(Kind::ForwarderResponse, now), &known, || {
                answer.to_vec().ok()
            });
        }
    }

    /// Copies an event; the message is written only where it is wanted.
    fn tell(&self, event: Event<'_>, known: &Metadata, octets: impl Fn() -> Option<Vec<u8>>) {
        let full = self.0.iter().any(|tap| tap.full && tap.listened_to());
        let octets = full.then(octets).flatten();
        for tap in self.0.iter().filter(|tap| tap.listened_to()) {
            let event = Event {
                octets: octets.as_deref().filter(|_| tap.full),
                ..event
            };
            let extra = super::log::metadata(&tap.extra, known);
            tap.tell(frame::data(&tap.identity, &tap.version, &extra, &event));
        }
    }
}

impl Tap {
    fn listened_to(&self) -> bool {
        match &self.outlet {
            Outlet::Queue(_) => true,
            Outlet::Crowd(crowd) => !crowd.is_empty(),
        }
    }

    fn tell(&self, data: Vec<u8>) {
        match &self.outlet {
            Outlet::Crowd(crowd) => crowd.tell(&data.into()),
            // A full queue loses frames, never answers.
            Outlet::Queue(frames) if frames.try_send(data.into()).is_err() => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
                    *told = Some(Instant::now());
                    tracing::warn!(
                        "dnstap: the observer is not there or too slow; messages are dropped"
                    );
                }
            }
            Outlet::Queue(_) => {}
        }
    }
}

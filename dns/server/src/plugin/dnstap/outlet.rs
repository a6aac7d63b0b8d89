//! Where frames go: to an observer that is connected to, or to those that connect.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;

use super::frame;
use crate::plugin::forward::connection::Stream;

/// Observers of one listener at a time.
const OBSERVERS_MAX: usize = 64;
/// Frames that wait for an observer who connected; one who is slower than that is let go.
const BEHIND_MAX: usize = 1000;
/// How long an observer may take to shake hands.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) type Frame = Arc<[u8]>;

/// Turns true when nothing more comes.
type Ended = watch::Receiver<bool>;

/// An observer that is connected to.
pub(super) enum Observer {
    Unix(PathBuf),
    /// Host and port; the host is looked up at each attempt.
    Tcp(
        String,
        Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    ),
}

/// A place where observers connect.
pub(super) enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr, Option<Arc<rustls::ServerConfig>>),
}

/// Those who listen now.
#[derive(Default)]
pub(super) struct Crowd(Mutex<Vec<mpsc::Sender<Frame>>>);

impl Crowd {
    /// Gives a frame to all; who is too slow is let go.
    pub(super) fn tell(&self, frame: &Frame) {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.retain(|one| one.try_send(Arc::clone(frame)).is_ok());
    }

    pub(super) fn is_empty(&self) -> bool {
        let crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.is_empty()
    }

    fn join(&self) -> Option<mpsc::Receiver<Frame>> {
        let (frames, waiting) = mpsc::channel(BEHIND_MAX);
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.retain(|one| !one.is_closed());
        (crowd.len() < OBSERVERS_MAX).then(|| crowd.push(frames))?;
        Some(waiting)
    }
}

/// Sends frames while there is an observer, and looks for him again when there is none. Ends with the sender.
pub(super) async fn send(
    observer: Arc<Observer>,
    mut waiting: mpsc::Receiver<Frame>,
    buffer: Option<usize>,
    mut ended: Ended,
) {
    loop {
        let told = async {
            let connecting = connect(&observer, buffer);
            let mut stream = tokio::select! {
                stream = connecting => stream?,
                _ = ended.wait_for(|ended| *ended) => return Ok(()),
            };
            converse(&mut stream, &mut waiting, &mut ended).await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "dnstap: the observer is not there");
        }
        if waiting.is_closed() || *ended.borrow() {
            return;
        }
        let pause = ended.wait_for(|ended| *ended);
        let _ = tokio::time::timeout(Duration::from_secs(1), pause)
            .await
            .map(drop);
    }
}

async fn connect(observer: &Observer, buffer: Option<usize>) -> std::io::Result<Box<dyn Stream>> {
    let (host, tls) = match observer {
        Observer::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Observer::Tcp(host, tls) => (host, tls),
    };
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(host.as_str()))
        .await
        .map_err(std::io::Error::other)??;
    if let Some(octets) = buffer {
        // The kernel grants what net.core.wmem_max allows.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, octets);
    }
    Ok(match tls {
        None => Box::new(stream),
        Some((config, name)) => {
            let connecting = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
            let shaken = tokio::time::timeout(PATIENCE, connecting).await;
            Box::new(shaken.map_err(std::io::Error::other)??)
        }
    })
}

/// Lets observers connect for as long as it runs. A place that is taken, as by the configuration before, is tried
/// again.
pub(super) async fn listen(place: Place, crowd: Arc<Crowd>, ended: watch::Sender<bool>) {
    let mut told = false;
    loop {
        let accepted: std::io::Result<()> = match &place {
            Place::Unix(path) => accept_unix(path, &crowd, &ended).await,
            Place::Tcp(address, tls) => accept_tcp(*address, tls.as_ref(), &crowd, &ended).await,
        };
        if let Err(error) = accepted
            && !std::mem::replace(&mut told, true)
        {
            tracing::warn!(%error, "dnstap: observers cannot connect yet");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn accept_unix(
    path: &Path,
    crowd: &Arc<Crowd>,
    ended: &watch::Sender<bool>,
) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    // What a process before left behind.
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    loop {
        let (stream, _) = listener.accept().await?;
        welcome(
            crowd,
            ended.subscribe(),
            Box::pin(async move { Ok(Box::new(stream) as Box<dyn Stream>) }),
        );
    }
}

async fn accept_tcp(
    address: SocketAddr,
    tls: Option<&Arc<rustls::ServerConfig>>,
    crowd: &Arc<Crowd>,
    ended: &watch::Sender<bool>,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let tls = tls.map(Arc::clone);
        welcome(
            crowd,
            ended.subscribe(),
            Box::pin(async move {
                Ok(match tls {
                    None => Box::new(stream) as Box<dyn Stream>,
                    Some(tls) => Box::new(TlsAcceptor::from(tls).accept(stream).await?),
                })
            }),
        );
    }
}

type Connecting = BoxFuture<'static, std::io::Result<Box<dyn Stream>>>;

/// A task for an observer, if there are not too many.
fn welcome(crowd: &Arc<Crowd>, mut ended: Ended, connecting: Connecting) {
    let Some(mut waiting) = crowd.join() else {
        tracing::warn!(most = OBSERVERS_MAX, "dnstap: too many observers");
        return;
    };
    tokio::spawn(async move {
        let told = async {
            let shaken = tokio::time::timeout(PATIENCE, connecting).await;
            let mut stream = shaken.map_err(std::io::Error::other)??;
            converse(&mut stream, &mut waiting, &mut ended).await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "dnstap: an observer is gone");
        }
    });
}

/// Shakes hands, then sends what comes until nothing will.
async fn converse(
    stream: &mut Box<dyn Stream>,
    waiting: &mut mpsc::Receiver<Frame>,
    ended: &mut Ended,
) -> std::io::Result<()> {
    stream.write_all(&frame::control(frame::READY)).await?;
    stream.flush().await?;
    let shaken = tokio::time::timeout(PATIENCE, accepted(stream)).await;
    shaken.map_err(std::io::Error::other)??;
    stream.write_all(&frame::control(frame::START)).await?;
    stream.flush().await?;
    let mut octets = Vec::new();
    loop {
        let next = tokio::select! {
            // What waits is sent before the end is told.
            biased;
            next = waiting.recv() => next,
            _ = ended.wait_for(|ended| *ended) => None,
        };
        let Some(first) = next else { break };
        // What waits leaves together.
        let mut next = Some(first);
        while let Some(frame) = next {
            octets.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            octets.extend_from_slice(&frame);
            next = match octets.len() {
                0..65_536 => waiting.try_recv().ok(),
                _ => None,
            };
        }
        stream.write_all(&octets).await?;
        stream.flush().await?;
        octets.clear();
    }
    // Nothing more will come: the observer may close its file in peace.
    stream.write_all(&frame::stop()).await?;
    stream.shutdown().await
}

/// Waits for the observer to accept the content.
async fn accepted(stream: &mut Box<dyn Stream>) -> std::io::Result<()> {
    let wrong = |what: &str| Err(std::io::Error::other(what.to_owned()));
    if stream.read_u32().await? != 0 {
        return wrong("no control frame");
    }
    let length = stream.read_u32().await?;
    if !(4..=512).contains(&length) {
        return wrong("a control frame of strange length");
    }
    let mut octets = vec![0; length as usize];
    stream.read_exact(&mut octets).await?;
    match frame::accepts(&octets) {
        true => Ok(()),
        false => wrong("the observer does not take dnstap"),
    }
}

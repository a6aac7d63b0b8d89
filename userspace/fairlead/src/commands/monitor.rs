//! `fairlead monitor`: what the programs tell of flows that begin, of what is dropped or refused and of what policies
//! let pass, with names, while it happens.

mod known;
mod line;

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use abi::events::kinds;
use anyhow::Context as _;
use bpf::{Watch, Watched};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use self::known::Known;
use super::filter::Filter;
use crate::cli::{self, EventKind};
use crate::output::{self, Format};

/// How often names are asked for anew.
const REFRESH: Duration = Duration::from_secs(30);
/// How long after that something without a name has them asked for again.
const REFRESH_EARLY: Duration = Duration::from_secs(2);
/// How long nothing may happen before it is looked whether to end.
const LOOK: Duration = Duration::from_millis(200);
/// How often lost events are told of, at most.
const LOST: Duration = Duration::from_secs(1);
/// How long what is being written may take when it is to end.
const GRACE: Duration = Duration::from_secs(1);
/// Octets that are written at once, about.
const PAGE: usize = 1 << 15;

pub(crate) async fn run(flags: cli::Monitor) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stopping = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stopping);
    let mut watching = tokio::task::spawn_blocking(move || watch(&flags, &asked));
    tokio::select! {
        done = &mut watching => return done.context("watch")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stopping.store(true, Ordering::Release);
    match tokio::time::timeout(GRACE, watching).await {
        Ok(done) => done.context("watch")?,
        // Whoever reads what it writes does not go on.
        Err(_) => std::process::exit(1),
    }
}

fn watch(flags: &cli::Monitor, stopping: &AtomicBool) -> anyhow::Result<()> {
    let root = &flags.bpffs.bpffs_root;
    let watched = Watched {
        kinds: kinds_of(flags),
        one_in: flags.sample,
    };
    let mut watch = Watch::start(root, watched)?;
    // Names may take seconds: what happens meanwhile waits in the ring.
    let mut known = Known::read(root, flags.kubeconfig.as_deref())?;
    let filter = Filter::new(&flags.filter, &known.names)?;
    let mut names = Asked::new(flags);
    let mut page = Page::new(flags.output);
    let mut left = flags.count;
    let mut lost_told = Instant::now();
    let stdout = std::io::stdout();
    while left != Some(0) && !stopping.load(Ordering::Acquire) {
        if !watch.wait(stdout.as_fd(), LOOK)? {
            return Ok(());
        }
        while left != Some(0)
            && page.text.len() < PAGE
            && let Some(event) = watch.take()
        {
            let line = known.line(&event);
            if filter.shows(line.seen()) {
                left = left.map(|left| left - 1);
                page.event(&line)?;
            }
        }
        if lost_told.elapsed() >= LOST {
            lost_told = Instant::now();
            page.lost(watch.lost()?)?;
        }
        if !page.turn()? {
            return Ok(());
        }
        if let Some(newer) = names.newer(known.misses()) {
            known.replace(newer);
        }
    }
    page.lost(watch.lost()?)?;
    page.turn().map(drop)
}

fn kinds_of(flags: &cli::Monitor) -> u32 {
    if flags.drops {
        return kinds::DROP | kinds::REFUSE;
    }
    let bits = flags.kinds.iter().map(|kind| match kind {
        EventKind::New => kinds::NEW,
        EventKind::Drop => kinds::DROP,
        EventKind::Refuse => kinds::REFUSE,
        EventKind::Error => kinds::ERROR,
        EventKind::Policy => kinds::POLICY,
    });
    match bits.fold(0, |all, bit| all | bit) {
        0 => kinds::ALL,
        some => some,
    }
}

/// Names, asked for while events come.
struct Asked {
    root: PathBuf,
    kubeconfig: Option<PathBuf>,
    since: Instant,
    misses: bool,
    asking: Option<JoinHandle<anyhow::Result<Known>>>,
}

impl Asked {
    fn new(flags: &cli::Monitor) -> Self {
        Asked {
            root: flags.bpffs.bpffs_root.clone(),
            kubeconfig: flags.kubeconfig.clone(),
            since: Instant::now(),
            misses: false,
            asking: None,
        }
    }

    /// Those that were asked for meanwhile; asks again where it is time, or something has no name yet.
    fn newer(&mut self, misses: bool) -> Option<Known> {
        self.misses |= misses;
        let mut newer = None;
        if let Some(done) = self.asking.take_if(|asking| asking.is_finished()) {
            // Where it was not told, the names of before stay.
            newer = done.join().ok().and_then(Result::ok);
        }
        let age = self.since.elapsed();
        if self.asking.is_none() && (age >= REFRESH || self.misses && age >= REFRESH_EARLY) {
            (self.since, self.misses) = (Instant::now(), false);
            let (root, kubeconfig) = (self.root.clone(), self.kubeconfig.clone());
            let read = move || Known::read_again(&root, kubeconfig.as_deref());
            // Without a thread the names of before stay, too.
            self.asking = thread::Builder::new().spawn(read).ok();
        }
        newer
    }
}

/// Lines that are written together.
struct Page {
    format: Format,
    text: String,
}

impl Page {
    fn new(format: Format) -> Self {
        Page {
            format,
            text: String::new(),
        }
    }

    fn event(&mut self, line: &line::Line) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text += &line.text(),
            Format::Json | Format::Yaml => self.document(line)?,
        }
        Ok(())
    }

    fn lost(&mut self, count: u64) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Lost {
            #[serde(rename = "type")]
            kind: &'static str,
            count: u64,
        }
        if count == 0 {
            return Ok(());
        }
        match self.format {
            Format::Table => {
                self.text += &format!(
                    "LOST    {count} events found no room: --sample N has one of N told, --type fewer kinds\n"
                );
                Ok(())
            }
            Format::Json | Format::Yaml => self.document(&Lost {
                kind: "lost",
                count,
            }),
        }
    }

    /// JSON a line each, YAML a document each.
    fn document<T: Serialize>(&mut self, value: &T) -> anyhow::Result<()> {
        match self.format {
            Format::Yaml => {
                self.text += "---\n";
                self.text += &serde_saphyr::to_string(value).context("encode YAML")?;
            }
            Format::Table | Format::Json => {
                self.text += &serde_json::to_string(value).context("encode JSON")?;
                self.text.push('\n');
            }
        }
        Ok(())
    }

    /// Writes what there is; false where nobody reads on.
    fn turn(&mut self) -> anyhow::Result<bool> {
        if self.text.is_empty() {
            return Ok(true);
        }
        let open = output::emit_on(&self.text)?;
        self.text.clear();
        Ok(open)
    }
}

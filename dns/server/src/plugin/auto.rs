//! `auto`: the zones whose master files lie in a folder, as they come and go.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use hickory_proto::rr::Name;
use regex::Regex;
use tokio::task::JoinHandle;

use super::Next;
use super::Plugin;
use super::file;
use super::file::Slot;
use super::file::Zones;
use super::setup::Fallthrough;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use super::transfer::Notify;
use super::transfer::Source;
use crate::message::Request;
use crate::message::Served;
use crate::names;

/// Zones of a folder at most.
const ZONES_MAX: usize = 100_000;

/// How deep folders are searched.
const DEPTH_MAX: usize = 8;

struct Folder {
    path: PathBuf,
    pattern: Regex,
    /// The origin, with `{1}` for the pattern's first group.
    template: String,
    /// Zones outside these are passed over.
    within: Vec<Name>,
    zones: Arc<Zones>,
    notify: Notify,
    /// When the file of each zone was changed, as of the last look.
    seen: Mutex<BTreeMap<Name, (PathBuf, SystemTime)>>,
}

struct Auto {
    folder: Arc<Folder>,
    fallthrough: Fallthrough,
    every: Duration,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Reads `auto [ZONE...] { directory DIR [PATTERN TEMPLATE]; reload D; fallthrough [ZONE...] }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let mut every = Duration::from_secs(60);
    let mut fallthrough = Fallthrough::Never;
    let mut directory = None;
    for option in &line.block {
        match option.name.text.as_str() {
            "directory" => {
                let words = option.between(1, 4)?;
                let [path, rest @ ..] = words else { continue };
                // The word of old for `reload`, in seconds.
                if let Some(seconds) = rest.get(2) {
                    every = Duration::from_secs(seconds.number(1, 86_400)?);
                }
                let (pattern, template) = match rest {
                    [pattern, template, ..] => (pattern.text.as_str(), template.text.as_str()),
                    [pattern] => (pattern.text.as_str(), "{1}"),
                    [] => (r"db\.(.*)", "{1}"),
                };
                let pattern = Regex::new(pattern).map_err(|error| {
                    option.error(
                        format!("auto: the pattern is wrong: {error}"),
                        "write a regular expression, as in db\\.(.*)",
                    )
                })?;
                directory = Some((setup.path(&path.text), pattern, template.to_owned()));
            }
            "reload" => every = option.exactly::<1>()?[0].duration()?,
            "fallthrough" => fallthrough = Fallthrough::read(option)?,
            "upstream" => {}
            _ => {
                return Err(
                    option.unknown("auto", &["directory", "fallthrough", "reload", "upstream"])
                );
            }
        }
    }
    let Some((path, pattern, template)) = directory else {
        return Err(line.error("auto: no folder", "add a line `directory DIR`"));
    };
    let folder = Arc::new(Folder {
        path,
        pattern,
        template,
        within: setup.zones_of(&line.args)?,
        zones: Arc::new(Zones::default()),
        notify: setup.draft.notify.clone(),
        seen: Mutex::default(),
    });
    folder.look();
    setup
        .draft
        .source(Arc::clone(&folder.zones) as Arc<dyn Source>);
    Ok(Some(Arc::new(Auto {
        folder,
        fallthrough,
        every,
        task: Mutex::new(None),
    })))
}

impl Folder {
    /// Reads files that are new or changed, and forgets zones whose files are gone.
    fn look(&self) {
        let files = self.files();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before: BTreeMap<Name, Slot> = self.zones.list().iter().cloned().collect();
        let mut list = Vec::new();
        for (origin, (path, changed)) in &files {
            let known = seen
                .get(origin)
                .is_some_and(|known| *known == (path.clone(), *changed));
            if let Some(slot) = before.get(origin).filter(|_| known) {
                list.push((origin.clone(), Arc::clone(slot)));
                continue;
            }
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "auto: cannot read a zone");
                    continue;
                }
            };
            match file::read(path, &text, origin) {
                Ok(zone) => {
                    let slot = before
                        .get(origin)
                        .cloned()
                        .unwrap_or_else(|| Arc::new(ArcSwapOption::empty()));
                    slot.store(Some(Arc::new(zone)));
                    list.push((origin.clone(), slot));
                    self.notify.changed(origin);
                }
                Err(error) => {
                    tracing::error!(%error, "auto: a zone's file is wrong; the zone stays as it was");
                    list.extend(
                        before
                            .get(origin)
                            .map(|slot| (origin.clone(), Arc::clone(slot))),
                    );
                }
            }
        }
        *seen = files;
        self.zones.set(list);
    }

    fn files(&self) -> BTreeMap<Name, (PathBuf, SystemTime)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![(self.path.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                tracing::warn!(folder = %folder.display(), "auto: the folder cannot be read");
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                // Through links, since a mounted ConfigMap is links.
                let Ok(metadata) = std::fs::metadata(&path) else {
                    continue;
                };
                if metadata.is_dir() {
                    let hidden = entry.file_name().to_string_lossy().starts_with('.');
                    if depth < DEPTH_MAX && !hidden {
                        folders.push((path, depth + 1));
                    }
                } else if let (Some(origin), Ok(changed)) =
                    (self.origin(&path), metadata.modified())
                    && found.len() < ZONES_MAX
                {
                    found.insert(origin, (path, changed));
                }
            }
        }
        found
    }

    /// The zone that a file's name stands for.
    fn origin(&self, path: &Path) -> Option<Name> {
        let file = path.file_name()?.to_str()?;
        let groups = self.pattern.captures(file)?;
        let mut origin = self.template.clone();
        for index in 0..groups.len() {
            let group = groups.get(index).map_or("", |group| group.as_str());
            origin = origin.replace(&format!("{{{index}}}"), group);
        }
        let origin = names::parse(&origin).ok()?;
        matching(&self.within, &origin).map(|_| origin)
    }
}

impl Plugin for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(file::serve(
            "auto",
            &self.folder.zones,
            &self.fallthrough,
            request,
            next,
        ))
    }

    fn start(&self) {
        if self.every.is_zero() {
            return;
        }
        let (folder, every) = (Arc::clone(&self.folder), self.every);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let folder = Arc::clone(&folder);
                let _ = tokio::task::spawn_blocking(move || folder.look()).await;
            }
        });
        let mut kept = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = kept.replace(task) {
            before.abort();
        }
    }
}

impl Drop for Auto {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

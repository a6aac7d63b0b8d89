//! What a plugin is given to set itself up, and helpers to read its lines.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use hickory_proto::rr::Name;
use ipnet::IpNet;

use super::Plugin;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Key;
use crate::corefile::Token;
use crate::http::Route;
use crate::instance::Environment;
use crate::message::Request;
use crate::names;

/// Decides whether a block serves a request (`view`).
pub type Filter = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// What plugins of a block leave for the server and for each other while the block is set up.
#[derive(Default)]
pub struct Draft {
    /// Addresses to listen on instead of all.
    pub bind: Vec<IpAddr>,
    /// Certificates for `tls://` and `https://`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The block's view.
    pub view: Option<(String, Filter)>,
    /// Zones whose requests plugins describe (`metadata`); none without the plugin.
    pub metadata: Vec<Name>,
    /// The folder of relative file names.
    pub root: Option<PathBuf>,
    /// True if panics and such are to be told in full.
    pub debug: bool,
    /// Limits of connections.
    pub timeouts: Timeouts,
    /// What zones can be transferred, filled by plugins with zones.
    pub transfers: Arc<Mutex<Vec<Arc<dyn super::transfer::Source>>>>,
    /// Who wants copies of messages (`dnstap`).
    pub taps: super::dnstap::Taps,
    /// Tells servers of changed zones.
    pub notify: super::transfer::Notify,
    /// Who can tell a client's search path, by plugin name.
    pub search_paths: Arc<Mutex<Vec<(&'static str, Arc<dyn super::autopath::SearchPath>)>>>,
    /// What `k8s_external` asks of `kubernetes`, which comes after it.
    pub outside: super::k8s_external::Place,
    /// Turns true when the sockets of the configuration are open.
    pub listening: Arc<tokio::sync::watch::Sender<bool>>,
    /// The chain once it is complete, for plugins that ask about the others.
    pub chain: Arc<std::sync::OnceLock<std::sync::Weak<[Arc<dyn Plugin>]>>>,
}

impl Draft {
    /// Adds a plugin's zones to those that can be transferred.
    pub fn source(&self, source: Arc<dyn super::transfer::Source>) {
        self.transfers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(source);
    }
}

/// How long connections may take (`timeouts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a whole query to arrive.
    pub read: Duration,
    /// For an answer to be taken.
    pub write: Duration,
    /// Between queries.
    pub idle: Duration,
    /// Queries that a connection carries before it is closed; nothing means without limit.
    pub queries: Option<usize>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(3),
            write: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            queries: None,
        }
    }
}

/// What plugins of all blocks leave for the configuration. It takes effect when the configuration is put into service.
#[derive(Default)]
pub struct Whole {
    /// What HTTP servers answer.
    pub routes: Vec<Route>,
    /// Whose readiness `ready` tells.
    pub watched: Arc<super::ready::Watched>,
    /// How long to go on answering after the end was asked for (`health { lameduck }`).
    pub lameduck: Duration,
    /// How often the Corefile is looked at, if `reload` says so.
    pub reload: Option<crate::reload::Interval>,
}

/// The surroundings of a plugin while it is set up.
pub struct Setup<'a> {
    /// What lives as long as the process.
    pub environment: &'a Arc<Environment>,
    /// The block's keys.
    pub keys: &'a [Key],
    /// The block's zones.
    pub zones: &'a [Name],
    /// The block's name in metrics, as `dns://:53`.
    pub server: &'a Arc<str>,
    /// The folder of the Corefile.
    pub folder: &'a Path,
    /// What is left for others of the block.
    pub draft: &'a mut Draft,
    /// What is left for the whole configuration.
    pub whole: &'a mut Whole,
    /// The plugin's lines in this block: at least one.
    pub lines: &'a [&'a Directive],
}

/// What setting up ends in: a link of the chain, or nothing where the plugin only configures.
pub type Made = Result<Option<Arc<dyn Plugin>>, ConfigError>;

impl<'a> Setup<'a> {
    /// The only line of a plugin that may be named once.
    ///
    /// # Errors
    ///
    /// When it is named twice.
    pub fn once(&self) -> Result<&'a Directive, ConfigError> {
        match self.lines {
            [line] => Ok(line),
            [_, second, ..] => Err(second.name.error(
                format!("{} stands twice in one block", second.name.text),
                "keep one of the lines",
            )),
            // The table calls a plugin only where it is named.
            [] => Err(ConfigError {
                file: Arc::from(""),
                line: 0,
                what: "a plugin was set up that is not named".to_owned(),
                remedy: "report this".to_owned(),
            }),
        }
    }

    /// A file as the Corefile names it: under `root` if there is one, else from where the process runs, as CoreDNS has
    /// it. What is not there is looked for beside the Corefile.
    #[must_use]
    pub fn path(&self, text: &str) -> PathBuf {
        if let Some(root) = &self.draft.root {
            return root.join(text);
        }
        let (here, beside) = (PathBuf::from(text), self.folder.join(text));
        match !here.exists() && beside.exists() {
            true => beside,
            false => here,
        }
    }

    /// The zones that a line names, or the block's if it names none.
    ///
    /// # Errors
    ///
    /// When a word is not a zone.
    pub fn zones_of(&self, words: &[Token]) -> Result<Vec<Name>, ConfigError> {
        if words.is_empty() {
            return Ok(self.zones.to_vec());
        }
        zones(words)
    }
}

/// The zones that words name.
///
/// # Errors
///
/// When a word is not a zone.
pub fn zones(words: &[Token]) -> Result<Vec<Name>, ConfigError> {
    let mut found = Vec::new();
    for word in words {
        let zones = names::zones(&word.text)
            .map_err(|error| word.error(error, "write a zone such as example.org"))?;
        found.extend(zones);
    }
    Ok(found)
}

impl Directive {
    /// An error at this line.
    #[must_use]
    pub fn error(&self, what: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        self.name.error(what, remedy)
    }

    /// The error of an option that the plugin does not know.
    #[must_use]
    pub fn unknown(&self, plugin: &str, known: &[&str]) -> ConfigError {
        self.name.error(
            format!("{plugin}: unknown option {}", self.name.text),
            format!("known are {}", known.join(", ")),
        )
    }

    /// Exactly this many arguments.
    ///
    /// # Errors
    ///
    /// When there are more or fewer.
    pub fn exactly<const N: usize>(&self) -> Result<[&Token; N], ConfigError> {
        let found = self.args.len();
        let args: Vec<&Token> = self.args.iter().collect();
        args.try_into().map_err(|_| {
            self.error(
                format!("{} has {found} arguments", self.name.text),
                format!("give it {N}"),
            )
        })
    }

    /// From `least` to `most` arguments.
    ///
    /// # Errors
    ///
    /// When there are more or fewer.
    pub fn between(&self, least: usize, most: usize) -> Result<&[Token], ConfigError> {
        if (least..=most).contains(&self.args.len()) {
            return Ok(&self.args);
        }
        let range = match (least, most) {
            (least, usize::MAX) => format!("at least {least}"),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        Err(self.error(
            format!("{} has {} arguments", self.name.text, self.args.len()),
            format!("give it {range}"),
        ))
    }

    /// No block.
    ///
    /// # Errors
    ///
    /// When there is one.
    pub fn no_block(&self) -> Result<(), ConfigError> {
        match self.block.first() {
            None => Ok(()),
            Some(line) => Err(line.error(
                format!("{} takes no block", self.name.text),
                "take the braces and what is between them away",
            )),
        }
    }
}

impl Token {
    /// The word as a number, within bounds.
    ///
    /// # Errors
    ///
    /// When it is none or out of bounds.
    pub fn number<N>(&self, least: N, most: N) -> Result<N, ConfigError>
    where
        N: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        match self.text.parse::<N>() {
            Ok(number) if number >= least && number <= most => Ok(number),
            Ok(_) | Err(_) => Err(self.error(
                format!("{:?} is not a number from {least} to {most}", self.text),
                "write a whole number within these bounds",
            )),
        }
    }

    /// The word as a duration: `30s`, `1m30s`, `500ms`; a bare number is seconds.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn duration(&self) -> Result<Duration, ConfigError> {
        duration(&self.text).ok_or_else(|| {
            self.error(
                format!("{:?} is not a duration", self.text),
                "write a number and a unit such as 30s, 1m30s or 500ms",
            )
        })
    }

    /// The word as addresses: an address, a prefix.
    ///
    /// # Errors
    ///
    /// When it is neither.
    pub fn prefix(&self) -> Result<IpNet, ConfigError> {
        self.text
            .parse::<IpNet>()
            .or_else(|_| self.text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| {
                self.error(
                    format!("{:?} is neither an address nor a prefix", self.text),
                    "write 192.0.2.1 or 192.0.2.0/24",
                )
            })
    }

    /// The word as an address to listen on: `:8080`, `127.0.0.1:8080`, `localhost:8080`.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn listen(&self, default_port: u16) -> Result<SocketAddr, ConfigError> {
        let text = self.text.as_str();
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let found = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(|port| SocketAddr::new(any, port)),
            None => text
                .replace("localhost", "127.0.0.1")
                .parse()
                .ok()
                .or_else(|| {
                    text.parse()
                        .ok()
                        .map(|ip| SocketAddr::new(ip, default_port))
                }),
        };
        found.ok_or_else(|| {
            self.error(
                format!("{text:?} is not an address to listen on"),
                "write [ADDRESS]:PORT, as in :8080 or 127.0.0.1:8080",
            )
        })
    }
}

/// Go's durations without fractions of a nanosecond: numbers with units, added up.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits =
            rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let end = tail
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// The longest of the zones that holds the name.
#[must_use]
pub fn matching<'z>(zones: &'z [Name], name: &Name) -> Option<&'z Name> {
    zones
        .iter()
        .filter(|zone| zone.zone_of(name))
        .max_by_key(|zone| names::labels(zone))
}

/// For which names a plugin hands on what it does not find.
#[derive(Clone, Debug, Default)]
pub enum Fallthrough {
    /// For none.
    #[default]
    Never,
    /// For names in these zones.
    Zones(Vec<Name>),
}

impl Fallthrough {
    /// Reads the arguments of `fallthrough`: none means every name.
    ///
    /// # Errors
    ///
    /// When a word is not a zone.
    pub fn read(line: &Directive) -> Result<Self, ConfigError> {
        if line.args.is_empty() {
            return Ok(Self::Zones(vec![Name::root()]));
        }
        Ok(Self::Zones(zones(&line.args)?))
    }

    /// True if the name goes on to the next plugin.
    #[must_use]
    pub fn covers(&self, name: &Name) -> bool {
        match self {
            Self::Never => false,
            Self::Zones(zones) => matching(zones, name).is_some(),
        }
    }
}

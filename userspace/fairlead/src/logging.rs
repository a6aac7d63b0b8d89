//! Logs to stderr, as text or JSON, filtered by `RUST_LOG`. The text of `fairlead dns` is CoreDNS's, on stdout.

use std::fmt;

use anyhow::Context as _;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One line a record.
    #[default]
    Text,
    /// One JSON object a record.
    Json,
}

/// Installs the subscriber. `RUST_LOG` wins over the level.
pub(crate) fn init(
    format: LogFormat,
    like_coredns: bool,
    level: LevelFilter,
) -> anyhow::Result<()> {
    let mut filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env()
        .context("RUST_LOG is no filter; want for instance `info` or `proxy=debug,warn`")?;
    if std::env::var_os(EnvFilter::DEFAULT_ENV).is_none() {
        // It warns of answers that come after nobody waits for them any more.
        filter = filter.add_directive("netlink_proto=error".parse()?);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text if like_coredns => builder
            .with_ansi(false)
            .event_format(CoreDns)
            .with_writer(std::io::stdout)
            .init(),
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Lines as CoreDNS writes them, `[ERROR] plugin/errors: 2 ...`, without a time: its users' filters and alerts look for
/// these words.
struct CoreDns;

impl<S, N> FormatEvent<S, N> for CoreDns
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        write!(writer, "[{}] ", level(*metadata.level()))?;
        match metadata.target().strip_prefix("dns_server::plugin::") {
            Some(module) => write!(writer, "plugin/{}: ", plugin(module))?,
            None if is_own(metadata.target()) => {}
            None => write!(writer, "{}: ", metadata.target())?,
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// The plugin of a module below `dns_server::plugin`.
fn plugin(module: &str) -> &str {
    match module.split("::").next().unwrap_or_default() {
        "looping" => "loop",
        name => name,
    }
}

/// Whether a line is the server's own, which it writes without saying where it comes from.
fn is_own(target: &str) -> bool {
    let program = target.split("::").next().unwrap_or_default();
    matches!(program, "dns_server" | "fairlead")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_as_coredns_writes_them() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::TRACE)
            .event_format(CoreDns)
            .with_writer(move || written.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "dns_server::plugin::errors", "2 a.example. A: i/o timeout");
            tracing::info!(target: "dns_server::log", "192.0.2.1:40212 - 7 \"A IN a.example.\"");
            tracing::warn!(target: "dns_server::plugin::looping", zone = ".", "a loop");
            tracing::info!(target: "dns_server::reload", "the Corefile was read anew");
            tracing::debug!(target: "client::watch", "again");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "[ERROR] plugin/errors: 2 a.example. A: i/o timeout\n\
             [INFO] 192.0.2.1:40212 - 7 \"A IN a.example.\"\n\
             [WARNING] plugin/loop: a loop zone=\".\"\n\
             [INFO] the Corefile was read anew\n\
             [DEBUG] client::watch: again\n"
        );
    }
}

//! What the kernel tells of this process, under the names that Prometheus' client libraries have for it.

use std::fmt::Write as _;

/// Ticks a second in `/proc` (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Samples of this process as Prometheus reads them: its CPU time, memory, files and start.
#[must_use]
pub fn process_metrics() -> String {
    let mut text = String::new();
    let status = read("/proc/self/status");
    // Kibibytes, as proc_pid_status(5) has them.
    let memory = |name: &str| 1024.0 * number(&status, name);
    let stat = read("/proc/self/stat");
    // The name, in brackets, may hold anything; the field behind it is the third.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let field = |number: usize| -> f64 {
        let field = fields.split_whitespace().nth(number - 3);
        field.and_then(|field| field.parse().ok()).unwrap_or(0.0)
    };
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let started = number(&read("/proc/stat"), "btime ") + field(22) / TICKS;
    #[expect(clippy::cast_precision_loss, reason = "few files")]
    let files = files as f64;
    let gauges = [
        (
            "max_fds",
            "Maximum number of open file descriptors.",
            number(&read("/proc/self/limits"), "Max open files "),
        ),
        ("open_fds", "Number of open file descriptors.", files),
        (
            "resident_memory_bytes",
            "Resident memory size in bytes.",
            memory("VmRSS:"),
        ),
        (
            "start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            started,
        ),
        (
            "virtual_memory_bytes",
            "Virtual memory size in bytes.",
            memory("VmSize:"),
        ),
    ];
    let spent = (field(14) + field(15)) / TICKS;
    let help = "Total user and system CPU time spent in seconds.";
    let counter = [("cpu_seconds_total", help, spent)];
    let kinds = [("counter", &counter[..]), ("gauge", &gauges[..])];
    for (kind, list) in kinds {
        for (name, help, value) in list {
            let _ = writeln!(
                text,
                "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}"
            );
        }
    }
    text
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// The first number behind the label that a line begins with.
fn number(text: &str, label: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process() {
        let text = super::process_metrics();
        let values: Vec<(&str, f64)> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once(' ').expect("a name and a value"))
            .map(|(name, value)| (name, value.parse().expect("a number")))
            .collect();
        assert_eq!(values.len(), 6, "{text}");
        for (name, value) in values {
            assert!(value > 0.0 || name.contains("cpu"), "{name} {value}");
        }
    }
}

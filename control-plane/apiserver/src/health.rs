//! `/healthz`, `/livez` and `/readyz`: whether the server works, in the words that probes and people know.

use std::fmt::Write as _;

use crate::query::Query;
use crate::respond::{self, Answer};
use crate::{State, bootstrap};

/// Answers `ok`, or names what fails. `path` is one of the three, or one check of it such as `/readyz/storage`.
pub(crate) async fn answer(state: &State, path: &str, query: &Query) -> Answer {
    let mut segments = path.trim_matches('/').splitn(2, '/');
    let name = segments.next().unwrap_or_default();
    let wanted = segments.next();
    let mut checks = vec![("ping", Ok(())), ("storage", storage(state).await)];
    if name == "readyz" {
        checks.push(("bootstrap", bootstrapped(state).await));
        let open = if *state.closing.borrow() {
            Err("the server is shutting down".to_owned())
        } else {
            Ok(())
        };
        checks.push(("shutdown", open));
    }
    if let Some(wanted) = wanted {
        return match checks.into_iter().find(|(check, _)| *check == wanted) {
            Some((_, Ok(()))) => respond::text(200, "ok"),
            Some((_, Err(why))) => respond::text(500, format!("internal server error: {why}\n")),
            None => respond::text(404, "404 page not found\n"),
        };
    }
    let excluded: Vec<&str> = query.values("exclude").collect();
    checks.retain(|(check, _)| !excluded.contains(check));
    let failed = checks.iter().any(|(_, result)| result.is_err());
    if !failed && query.flag("verbose").is_none() {
        return respond::text(200, "ok");
    }
    let mut page = String::new();
    for (check, result) in &checks {
        // Writing to a String can't fail. Causes may tell of paths and peers: they go to the log alone.
        let _ = match result {
            Ok(()) => writeln!(page, "[+]{check} ok"),
            Err(why) => {
                tracing::warn!(check, why, "a health check fails");
                writeln!(page, "[-]{check} failed: reason withheld")
            }
        };
    }
    page.push_str(&format!(
        "{name} check {}\n",
        if failed { "failed" } else { "passed" }
    ));
    respond::text(if failed { 500 } else { 200 }, page)
}

async fn storage(state: &State) -> Result<(), String> {
    state
        .storage
        .get("/registry/health")
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}

async fn bootstrapped(state: &State) -> Result<(), String> {
    let key = state.namespaces.key("", bootstrap::NAMESPACES[0]);
    match state.storage.get(&key).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("namespace {} is missing", bootstrap::NAMESPACES[0])),
        Err(error) => Err(error.to_string()),
    }
}

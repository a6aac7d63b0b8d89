//! Which servers there are on one store, so that the Service `kubernetes` leads to all of them. Each has a key below
//! `/registry/masterleases/` that lives for seconds unless it is written again, as kube-apiserver's have: a server that
//! ends without a word is forgotten. Where the store has one server only, nothing is written.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::value::{at, list, number};
use serde_json::{Value, json};
use storage::{Entry, Error as StorageError, Range, Write};

use crate::{Error, State, bootstrap};

const PREFIX: &str = "/registry/masterleases/";
/// How often a server says that it is there; the key lives three times as long.
const EVERY: Duration = Duration::from_secs(5);

/// An address and a port where a server is reached.
pub(crate) type Address = (IpAddr, u16);

/// Says that this server is there, and keeps the endpoints in line with who else is; until it is dropped.
pub(crate) async fn keep(state: Arc<State>, port: u16) {
    if !state.storage.keeps_house() {
        return;
    }
    let mut told = BTreeSet::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let done = async {
            let addresses = look(&state, port).await?;
            if addresses != told {
                bootstrap::endpoints(&state, &addresses).await?;
                told = addresses;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, "the endpoints of the Service kubernetes could not be kept");
        }
    }
}

/// As [`keep`], once.
pub(crate) async fn point(state: &Arc<State>, port: u16) -> Result<(), Error> {
    bootstrap::endpoints(state, &look(state, port).await?).await
}

/// Says that this server is there, and who else is.
async fn look(state: &State, port: u16) -> Result<BTreeSet<Address>, Error> {
    let own = (state.config.advertised(), port);
    let mut addresses = BTreeSet::from([own]);
    // A loopback address is nobody else's to reach.
    if state.storage.keeps_house() && !own.0.is_loopback() {
        let failed = |source| Error::Storage {
            doing: "telling other servers that this one is there",
            source,
        };
        say(state, own).await.map_err(failed)?;
        let range = Range {
            prefix: PREFIX.into(),
            ..Range::default()
        };
        let page = state.storage.list(range).await.map_err(failed)?;
        addresses.extend(page.entries.iter().filter_map(|entry| read(entry, port)));
    }
    Ok(addresses)
}

/// Takes back that this server is there.
pub(crate) async fn leave(state: &State) {
    if !state.storage.keeps_house() {
        return;
    }
    let key = key(state);
    if let Ok(Some(entry)) = state.storage.get(&key).await {
        let expected = entry.modified;
        let gone = state.storage.write(vec![Write::Delete { key, expected }]);
        if let Err(error) = gone.await {
            tracing::debug!(%error, "other servers find out by themselves that this one ends");
        }
    }
}

fn key(state: &State) -> String {
    format!("{PREFIX}{}", state.config.advertised())
}

async fn say(state: &State, (address, port): Address) -> Result<(), StorageError> {
    let key = key(state);
    let there = state.storage.get(&key).await?;
    let object = json!({
        "kind": "Endpoints", "apiVersion": "v1", "metadata": {},
        "subsets": [{"addresses": [{"ip": address.to_string()}], "ports": [{"port": port}]}],
    });
    let value = crate::object::encode(&object);
    let write = match there {
        None => Write::Create { key, value },
        Some(entry) => Write::Update {
            key,
            value,
            expected: entry.modified,
        },
    };
    match state.storage.write(vec![write]).await {
        // It ran out, or another server has the same address, in this very moment.
        Err(
            StorageError::Exists { .. }
            | StorageError::Conflict { .. }
            | StorageError::NotFound { .. },
        ) => Ok(()),
        written => written.map(|_| ()),
    }
}

/// The server that a key stands for. Those of kube-apiserver name no port: it is the same for all.
fn read(entry: &Entry, port: u16) -> Option<Address> {
    let address = entry.key.strip_prefix(PREFIX)?.parse().ok()?;
    let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let subset = list(&object, &["subsets"]).first();
    let named = subset.and_then(|subset| list(subset, &["ports"]).first());
    let named = named.filter(|named| !at(named, &["port"]).is_null());
    let named = named.and_then(|named| u16::try_from(number(named, &["port"])).ok());
    Some((address, named.unwrap_or(port)))
}

//! One try at applying a configuration: merge it, take out what is no longer applied, and see who stands against that.

use std::collections::BTreeMap;

use api::value::text;
use serde_json::{Value, json};

use crate::collect::{collect_stored, with_named_parents};
use crate::entries::{Key, Managers, Owned};
use crate::managers::Writer;
use crate::merge::merge;
use crate::remove::remove;
use crate::set::Set;
use crate::types::Type;
use crate::versions::{self, Differences};

/// One try at applying.
pub(crate) struct Attempt<'a> {
    pub(crate) of: Type<'a>,
    pub(crate) live: &'a Value,
    pub(crate) config: &'a Value,
    pub(crate) writer: &'a Writer<'a>,
    /// Every field that the configuration sets.
    pub(crate) claimed: Set,
}

pub(crate) type Conflicts = Vec<(Key, Set)>;

impl Attempt<'_> {
    pub(crate) fn carry_out(
        &self,
        mut managers: Managers,
        force: bool,
    ) -> Result<(Value, Managers), Conflicts> {
        let key = self.writer.key(true);
        let mut claimed = self.claimed.clone();
        self.writer.reduce(&mut claimed);
        let last = managers.0.get(&key).cloned();
        let time = last.as_ref().and_then(|last| last.time.clone());
        let mut object = merge(self.of, self.live, self.config);
        let own = Owned {
            fields: claimed,
            time,
            api_version: self.writer.api_version.to_owned(),
        };
        managers.0.insert(key.clone(), own);
        if let Some(last) = last {
            let is_foreign = |owned: &Owned| versions::form(&object, &owned.api_version).is_some();
            if managers.0.values().chain([&last]).any(is_foreign) {
                self.prune_across(&mut object, &managers, &last);
            } else {
                self.prune(&mut object, &managers, &last.fields);
            }
        }
        let found = Differences::new(self.of, self.live, &object, self.writer, &managers);
        if !force {
            let conflicts: Conflicts = managers
                .0
                .iter()
                .filter(|(other, _)| **other != key)
                .map(|(other, owned)| {
                    let changed = &found.to(owned).changed;
                    (other.clone(), owned.fields.intersection(changed))
                })
                .filter(|(_, set)| !set.is_empty())
                .collect();
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
        }
        for (other, owned) in &mut managers.0 {
            if *other != key {
                let found = found.to(owned);
                owned.fields.subtract(&found.changed);
                owned.fields.subtract(&found.removed);
            }
        }
        managers.drop_empty();
        Ok((object, managers))
    }

    /// Takes out what this manager applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: &mut Value, managers: &Managers, last: &Set) {
        let claimed = &managers
            .0
            .get(&self.writer.key(true))
            .map(|own| &own.fields);
        let mut dropped = last.clone();
        if let Some(claimed) = claimed {
            dropped.subtract(claimed);
        }
        if dropped.is_empty() {
            return;
        }
        let named = |set: &Set| with_named_parents(self.of, set);
        let stands = |object: &Value| named(&collect_stored(self.of, object));
        let last = named(last);
        let all = stands(merged);

        let mut owned = Set::default();
        for manager in managers.0.values() {
            owned.extend(manager.fields.clone());
        }
        // What is applied names its object, though nobody's record says so: what else is in its metadata stays with that.
        let name = json!({"f:metadata": {"f:name": {}}});
        owned.extend(Set::decode(&name).unwrap_or_default());
        let mut without = merged.clone();
        remove(self.of, &mut without, &last, &owned);
        let mut gone = all.clone();
        gone.subtract(&stands(&without));
        gone.subtract(&named(&owned));

        without.clone_from(merged);
        remove(self.of, &mut without, &gone, &owned);
        let mut gone = all;
        gone.subtract(&stands(&without));
        remove(self.of, merged, &gone.intersection(&last), &owned);
    }

    /// As [`Self::prune`], where somebody owns fields of a version that has others: what he owns is looked for in his.
    fn prune_across(&self, merged: &mut Value, managers: &Managers, last: &Owned) {
        let own = self.writer.api_version;
        let known = |version: &str| versions::form(merged, version).is_some();
        let named = |of: Type<'_>, set: &Set| with_named_parents(of, set);
        let stands = |of: Type<'_>, object: &Value| named(of, &collect_stored(of, object));
        let place = |version: &str| if known(version) { version } else { own }.to_owned();
        let name = json!({"f:metadata": {"f:name": {}}});
        let name = Set::decode(&name).unwrap_or_default();
        let mut held: BTreeMap<String, Set> = BTreeMap::new();
        for owned in managers.0.values() {
            let held = held.entry(place(&owned.api_version));
            held.or_insert_with(|| name.clone())
                .extend(owned.fields.clone());
        }
        let version = place(&last.api_version);
        let held_there = held.get(&version).unwrap_or(&name);
        let (of, there) = self.seen(merged, &version);
        let last = named(of, &last.fields);
        let mut pruned = there.clone();
        remove(of, &mut pruned, &last, held_there);
        for (version, held) in &held {
            let (of, mut all) = self.seen(&there, version);
            let (_, without) = self.seen(&pruned, version);
            let mut gone = stands(of, &all);
            gone.subtract(&stands(of, &without));
            gone.subtract(&named(of, held));
            remove(of, &mut all, &gone, held);
            pruned = all;
        }
        let (_, pruned) = self.seen(&pruned, &version);
        let mut gone = stands(of, &there);
        gone.subtract(&stands(of, &pruned));
        let mut left = there.clone();
        remove(of, &mut left, &gone.intersection(&last), held_there);
        if left != there {
            *merged = self.seen(&left, own).1;
        }
    }

    /// An object in a version that it can be had in.
    fn seen(&self, object: &Value, version: &str) -> (Type<'_>, Value) {
        let (of, object) = match versions::form(object, version) {
            Some((of, object)) => (Some(of), object),
            None => (
                versions::of(version, text(object, &["kind"])),
                object.clone(),
            ),
        };
        let of = of.filter(|_| version != self.writer.api_version);
        (of.unwrap_or(self.of), object)
    }
}

//! While a thousand changes a second are made every answer is what the API said at that moment: the state before or
//! after a write that is under way, and never one that was over.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use client::{Client, PatchKind};
use serde_json::{Value, json};
use testbed::wait_for;

use crate::stage::{Answer, SERVICES, SLICES, Stage, ask};

/// Changes a second.
const RATE: u64 = 1000;
/// Writes under way at one time: beyond these the API server is what is measured.
const AT_ONCE: usize = 32;
/// One of so many Services comes and goes; of the others an endpoint moves.
const MORTAL: u64 = 5;

/// How much is done, and what counts as old.
struct Effort {
    length: Duration,
    services: u64,
    /// A state that ended longer ago than this is too old to be told.
    grace: Duration,
}

/// `FAIRLEAD_SOAK_SECS` makes it longer, as large as is promised, and strict: for an optimised build on a machine with
/// nothing else to do. What takes the rest of the short run's grace is the scheduler of a busy machine, for which
/// `FAIRLEAD_SOAK_GRACE_MS` gives a longer run more.
fn effort() -> Result<Effort> {
    let grace = match std::env::var("FAIRLEAD_SOAK_GRACE_MS") {
        Ok(millis) => millis.parse()?,
        Err(_) => 100,
    };
    Ok(match std::env::var("FAIRLEAD_SOAK_SECS") {
        Ok(secs) => Effort {
            length: Duration::from_secs(secs.parse()?),
            services: 10_000,
            grace: Duration::from_millis(grace),
        },
        Err(_) => Effort {
            length: Duration::from_secs(5),
            services: 1_000,
            grace: Duration::from_secs(2),
        },
    })
}

/// What a Service was when: versions count from 0, with the time at which each was acknowledged.
#[derive(Default)]
struct Life {
    /// The last version whose write has begun.
    begun: u64,
    /// The last that was acknowledged, and those before it that ended within the grace.
    ended: Vec<(u64, Instant)>,
    /// The last that was acknowledged.
    now: u64,
}

impl Life {
    fn acknowledge(&mut self, version: u64, grace: Duration) {
        let at = Instant::now();
        self.ended.retain(|(_, end)| at - *end < 2 * grace);
        self.ended.push((self.now, at));
        self.now = version;
    }

    /// The oldest version that may be told to who asks now.
    fn oldest(&self, grace: Duration) -> u64 {
        let recent = self.ended.iter().filter(|(_, end)| end.elapsed() < grace);
        recent
            .map(|(version, _)| *version)
            .min()
            .unwrap_or(self.now)
    }
}

struct World {
    lives: Vec<Mutex<Life>>,
    /// Nothing changes any more.
    over: AtomicBool,
    answers: AtomicU64,
    grace: Duration,
}

impl World {
    fn life(&self, index: u64) -> std::sync::MutexGuard<'_, Life> {
        self.lives[index as usize]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn mortal(index: u64) -> bool {
    index.is_multiple_of(MORTAL)
}

/// Version 0 exists; a mortal one is gone in odd versions.
fn address(index: u64, version: u64) -> Ipv4Addr {
    match mortal(index) {
        true => Ipv4Addr::from(0x0a68_0000 + index as u32),
        false => Ipv4Addr::from(0x0b00_0000 + version as u32),
    }
}

fn service(index: u64) -> Value {
    let address = match mortal(index) {
        true => address(index, 0).to_string(),
        false => "None".to_owned(),
    };
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("soak-{index}")},
        "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80}]},
    })
}

async fn create(client: &Client, index: u64) -> Result<()> {
    let services = client::Path::raw(SERVICES);
    client.create::<Value>(&services, &service(index)).await?;
    if mortal(index) {
        return Ok(());
    }
    let name = format!("soak-{index}");
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": 80}],
        "endpoints": [{"addresses": [address(index, 0)]}],
    });
    let slices = client::Path::raw(SLICES);
    client.create::<Value>(&slices, &slice).await?;
    Ok(())
}

/// Makes the next version of a Service.
async fn change(client: &Client, world: &World, index: u64) -> Result<()> {
    let version = {
        let mut life = world.life(index);
        if life.begun > life.now {
            // Its last change is still under way; one at a time keeps the order known.
            return Ok(());
        }
        life.begun += 1;
        life.begun
    };
    let name = format!("soak-{index}");
    if !mortal(index) {
        let slice = client::Path::raw(&format!("{SLICES}/{name}"));
        let patch = json!({"endpoints": [{"addresses": [address(index, version)]}]});
        client
            .patch::<Value>(&slice, PatchKind::Merge, &patch)
            .await?;
    } else if version % 2 == 1 {
        let service = client::Path::raw(&format!("{SERVICES}/{name}"));
        client.delete(&service, &Value::Null).await?;
    } else {
        let services = client::Path::raw(SERVICES);
        client.create::<Value>(&services, &service(index)).await?;
    }
    world.life(index).acknowledge(version, world.grace);
    Ok(())
}

/// Asks for one name and judges the answer.
fn judge(socket: &UdpSocket, world: &World, index: u64) -> Result<()> {
    let oldest = world.life(index).oldest(world.grace);
    let answer = ask(socket, &format!("soak-{index}.default.svc.cluster.local"))?;
    let newest = world.life(index).begun;
    world.answers.fetch_add(1, Ordering::Relaxed);
    let fits = |version: u64| match (mortal(index) && version % 2 == 1, answer) {
        (true, Answer::NxDomain) => true,
        (false, Answer::Address(told)) => told == u32::from(address(index, version)),
        _ => false,
    };
    ensure!(
        (oldest..=newest).any(fits),
        "soak-{index} is between versions {oldest} and {newest}, and the answer was {answer:x?}"
    );
    Ok(())
}

#[test]
fn answers_are_never_older_than_the_api() -> Result<()> {
    let Effort {
        length,
        services,
        grace,
    } = effort()?;
    let stage = Stage::set()?;
    let world = Arc::new(World {
        lives: (0..services).map(|_| Mutex::default()).collect(),
        over: AtomicBool::new(false),
        answers: AtomicU64::new(0),
        grace,
    });
    stage.api.talk(move |client| async move {
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..services {
            while tasks.len() >= 64 {
                tasks.join_next().await.context("a task")???;
            }
            let client = client.clone();
            tasks.spawn(async move { create(&client, index).await });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    })?;
    // The server hears of the last of so many at once when it hears of them: changes are judged, not the beginning.
    let socket = stage.socket()?;
    let last = services - 1;
    wait_for("the Services", Duration::from_secs(60), || {
        judge(&socket, &world, last).ok()
    })?;
    std::thread::sleep(grace);
    let askers: Vec<_> = (0..2)
        .map(|seed| {
            let (socket, world) = (stage.socket()?, Arc::clone(&world));
            Ok(std::thread::spawn(move || -> Result<()> {
                let mut at = seed;
                while !world.over.load(Ordering::Relaxed) {
                    // All of them in an order without a pattern that the writers have.
                    at = (at + 7919) % services;
                    judge(&socket, &world, at)?;
                }
                Ok(())
            }))
        })
        .collect::<Result<_>>()?;
    let writing = Arc::clone(&world);
    let begun = Instant::now();
    let made = stage.api.talk(move |client| async move {
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tasks = tokio::task::JoinSet::new();
        let mut made = 0;
        while begun.elapsed() < length {
            ticks.tick().await;
            while let Some(done) = tasks.try_join_next() {
                done??;
            }
            if tasks.len() >= AT_ONCE {
                continue;
            }
            let (client, world) = (client.clone(), Arc::clone(&writing));
            let index = made * 31 % services;
            tasks.spawn(async move { change(&client, &world, index).await });
            made += 1;
        }
        while let Some(done) = tasks.join_next().await {
            let done: Result<()> = done?;
            done?;
        }
        Ok(made)
    });
    world.over.store(true, Ordering::Relaxed);
    for asker in askers {
        match asker.join() {
            Ok(judged) => judged?,
            Err(_) => bail!("a thread that asks ended early"),
        }
    }
    let made = made?;
    // Everything has settled: each name is in its last state.
    std::thread::sleep(grace);
    let socket = stage.socket()?;
    for index in 0..services {
        judge(&socket, &world, index)?;
    }
    let answers = world.answers.load(Ordering::Relaxed);
    println!("{made} changes in {length:?}, {answers} answers judged");
    ensure!(made >= 100, "only {made} changes were made");
    ensure!(answers > services, "only {answers} answers were judged");
    Ok(())
}

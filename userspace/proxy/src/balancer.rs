//! The deciding half of the proxy: what watches say in, steps out. A value, without clock or kernel.

use std::collections::{BTreeMap, BTreeSet};

use abi::balancing::Mode;
use model::{Clients, Frontend, FrontendKind, ServiceKey};
use plan::{Capacities, Epoch, Left, Named, Plan, Planner, Problem, Reach, Step, Tables};
use view::{Change, Event, Finding, HealthCheck, Services, objects};

use crate::{NoLocalEndpoints, Trouble};

/// Folds watches and plans tables.
#[derive(Debug)]
pub struct Balancer {
    services: Services,
    planner: Planner,
    /// Whether the planner has heard of everything, and may take away what nobody wants.
    complete: bool,
    troubled: BTreeMap<ServiceKey, Troubled>,
    /// Services whose problems were forgotten by starting over, and may be solved since.
    doubtful: Vec<ServiceKey>,
    /// Services that load balancers ask about.
    health_checked: BTreeSet<ServiceKey>,
    unserved: BTreeMap<ServiceKey, NoLocalEndpoints>,
    mode: Mode,
    limits: bool,
}

/// What is wrong with a service, by who found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Troubled {
    findings: Vec<Finding>,
    problems: Vec<Problem>,
    /// Steps that the kernel refused, in words.
    refused: Vec<String>,
    /// Where load balancers cannot ask.
    health_check: Vec<Trouble>,
}

/// What one turn decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// What may be reclaimed once the steps are done and a grace period is over.
    pub epoch: Epoch,
    /// How many services changed.
    pub services: usize,
    /// Services whose troubles changed, each with all that it has now.
    pub troubles: Vec<(ServiceKey, Vec<Trouble>)>,
    /// Backends that new connections to their service no longer reach.
    pub left: Vec<Left>,
    /// What load balancers ask about Services now, of those that changed.
    pub health_checks: Vec<(ServiceKey, Option<HealthCheck>)>,
}

impl Balancer {
    /// Starts from what the kernel holds.
    #[must_use]
    pub fn new(services: Services, kernel: &Tables, capacities: Capacities, named: Named) -> Self {
        Balancer {
            services,
            planner: Planner::restore(kernel, capacities, named),
            complete: false,
            troubled: BTreeMap::new(),
            doubtful: Vec::new(),
            health_checked: BTreeSet::new(),
            unserved: BTreeMap::new(),
            mode: Mode::Snat,
            limits: false,
        }
    }

    /// Says how external traffic gets to backends of other nodes; `snat` unless said.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self.planner = self.planner.with_mode(mode);
        self
    }

    /// Says how far packets in packets get. Where that is not as it was, the next turn plans everything anew.
    pub fn set_reach(&mut self, reach: Reach) {
        if *self.planner.reach() != reach {
            self.planner.set_reach(reach);
            self.complete = false;
        }
    }

    /// Says whether every Service has a bound on its flows; without, those have one that say so.
    #[must_use]
    pub fn with_limits(mut self, limits: bool) -> Self {
        self.limits = limits;
        self.planner = self.planner.with_limits(limits);
        self
    }

    /// Folds what the watch of Services said.
    pub fn service(&mut self, event: Event<objects::Service>) {
        self.services.service(event);
    }

    /// Folds what the watch of EndpointSlices said.
    pub fn slice(&mut self, event: Event<objects::EndpointSlice>) {
        self.services.slice(event);
    }

    /// Folds what the watch of Pods said.
    pub fn pod(&mut self, event: Event<objects::Pod>) {
        self.services.pod(event);
    }

    /// Folds what the watch of Nodes said.
    pub fn node(&mut self, event: Event<objects::Node>) {
        self.services.node(event);
    }

    /// What is folded.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// What is folded, to change.
    pub fn services_mut(&mut self) -> &mut Services {
        &mut self.services
    }

    /// What is planned.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// What is planned, to reclaim.
    pub fn planner_mut(&mut self) -> &mut Planner {
        &mut self.planner
    }

    /// Whether everything was heard of, and planned.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Plans what changed. Nothing is decided before all three watches have listed everything: what is not
    /// known yet may still be served by the tables as they are.
    pub fn turn(&mut self) -> Turn {
        if !self.services.synced() {
            return Turn::default();
        }
        let changes = if self.complete {
            self.services.changes()
        } else {
            self.services.all()
        };
        if changes.is_empty() && self.complete && !self.planner.can_retry() {
            return Turn::default();
        }
        let services = changes.len();
        let mut touched = Vec::with_capacity(services);
        let mut wanted = Vec::with_capacity(services);
        let mut health_checks = Vec::new();
        for Change {
            key,
            service,
            findings,
            health_check,
        } in changes
        {
            self.note_unserved(&key, service.as_ref());
            if health_check.is_some() || self.health_checked.contains(&key) {
                if health_check.is_some() {
                    self.health_checked.insert(key.clone());
                } else {
                    self.health_checked.remove(&key);
                }
                health_checks.push((key.clone(), health_check));
            }
            if self.troubled.get(&key).map_or(&[][..], |t| &t.findings) != findings {
                self.troubled.entry(key.clone()).or_default().findings = findings;
                touched.push(key.clone());
            }
            wanted.push((key, service));
        }
        let plan = if self.complete {
            self.planner.plan(wanted)
        } else {
            let existing = |(key, service): (_, Option<_>)| Some((key, service?));
            self.planner
                .plan_all(wanted.into_iter().filter_map(existing).collect())
        };
        self.complete = true;
        Turn {
            health_checks,
            ..self.conclude(plan, services, touched)
        }
    }

    /// Service ports that a traffic policy leaves without an endpoint.
    #[must_use]
    pub fn no_local_endpoints(&self) -> NoLocalEndpoints {
        let all = self.unserved.values();
        all.fold(NoLocalEndpoints::default(), |mut sum, of| {
            sum.internal += of.internal;
            sum.external += of.external;
            sum
        })
    }

    fn note_unserved(&mut self, key: &ServiceKey, service: Option<&model::Service>) {
        let mut unserved = NoLocalEndpoints::default();
        let ports = service.into_iter().flat_map(|service| &service.ports);
        for port in ports.filter(|port| port.drops) {
            // All frontends of a port are of one family.
            let ipv4 = port.frontends.iter().any(|f| f.addr.is_ipv4());
            let has = |kind: fn(&Frontend) -> bool| u64::from(port.frontends.iter().any(kind));
            *unserved.internal.of(ipv4) += has(|f| f.kind == FrontendKind::ClusterIp);
            *unserved.external.of(ipv4) += has(|f| f.clients == Clients::External);
        }
        if unserved == NoLocalEndpoints::default() {
            self.unserved.remove(key);
        } else {
            self.unserved.insert(key.clone(), unserved);
        }
    }

    /// Notes a step that the kernel refused: its service is not served in full until all is planned anew. Gives what
    /// is wrong with that service now, where it is known whose step it was.
    pub fn refused(&mut self, step: &Step, error: &str) -> Option<(ServiceKey, Vec<Trouble>)> {
        let id = match step {
            Step::PutFrontend(_, frontend) => frontend.service,
            Step::PutSource(key) | Step::RemoveSource(key) => key.service,
            Step::PutBackend(_, backend) => backend.service,
            Step::RemoveFrontend(_)
            | Step::PutRing { .. }
            | Step::PutSpread { .. }
            | Step::ClearSpread { .. }
            | Step::ClearRing { .. }
            | Step::RemoveBackend(_) => return None,
        };
        let (key, _) = self.planner.service_of(id)?;
        let key = key.clone();
        let troubled = self.troubled.entry(key.clone()).or_default();
        troubled
            .refused
            .push(format!("the kernel refused to {step}: {error}"));
        let troubles = troubled.troubles();
        Some((key, troubles))
    }

    /// Notes where load balancers cannot ask about a service now; gives all that is wrong with it.
    pub fn set_health_check(&mut self, key: &ServiceKey, now: Vec<Trouble>) -> Vec<Trouble> {
        let troubled = self.troubled.entry(key.clone()).or_default();
        troubled.health_check = now;
        let troubles = troubled.troubles();
        if troubles.is_empty() {
            self.troubled.remove(key);
        }
        troubles
    }

    /// Starts again from what the kernel really holds: a step failed, or somebody else wrote there.
    pub fn start_over(&mut self, kernel: &Tables, capacities: Capacities, named: Named) {
        let reach = self.planner.reach().clone();
        self.planner = Planner::restore(kernel, capacities, named)
            .with_mode(self.mode)
            .with_reach(reach)
            .with_limits(self.limits);
        self.complete = false;
        for (key, troubled) in &mut self.troubled {
            if !troubled.problems.is_empty() || !troubled.refused.is_empty() {
                troubled.problems.clear();
                troubled.refused.clear();
                self.doubtful.push(key.clone());
            }
        }
    }

    /// Every service with troubles, with all that it has.
    pub fn troubles(&self) -> impl Iterator<Item = (&ServiceKey, Vec<Trouble>)> {
        let all = self.troubled.iter();
        all.map(|(key, troubled)| (key, troubled.troubles()))
    }

    fn conclude(&mut self, plan: Plan, services: usize, mut touched: Vec<ServiceKey>) -> Turn {
        for (key, problems) in plan.problems {
            self.troubled.entry(key.clone()).or_default().problems = problems;
            touched.push(key);
        }
        touched.append(&mut self.doubtful);
        touched.sort();
        touched.dedup();
        let troubles = touched.into_iter().map(|key| {
            let now = self.troubled.get(&key);
            let troubles = now.map_or(Vec::new(), Troubled::troubles);
            if troubles.is_empty() {
                self.troubled.remove(&key);
            }
            (key, troubles)
        });
        Turn {
            troubles: troubles.collect(),
            steps: plan.steps,
            left: plan.left,
            epoch: plan.epoch,
            services,
            health_checks: Vec::new(),
        }
    }
}

impl Troubled {
    fn troubles(&self) -> Vec<Trouble> {
        let findings = self.findings.iter().map(Trouble::from);
        let problems = self.problems.iter().map(Trouble::from);
        let mut all: Vec<Trouble> = Vec::new();
        let refused = self.refused.iter().map(|message| Trouble {
            reason: "KernelRefused",
            message: message.clone(),
        });
        let asked = self.health_check.iter().cloned();
        for trouble in findings.chain(problems).chain(refused).chain(asked) {
            if !all.contains(&trouble) {
                all.push(trouble);
            }
        }
        all
    }
}

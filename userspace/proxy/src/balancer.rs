//! The deciding half of the proxy: what watches say in, steps out. A value, without clock or kernel.

use std::collections::BTreeMap;

use model::ServiceKey;
use plan::{Capacities, Epoch, Named, Plan, Planner, Problem, Step, Table, Tables};
use view::{Change, Event, Finding, Services, objects};

/// Folds watches and plans tables.
#[derive(Debug)]
pub struct Balancer {
    services: Services,
    planner: Planner,
    /// Whether the planner has heard of everything, and may take away what nobody wants.
    complete: bool,
    troubles: BTreeMap<ServiceKey, Trouble>,
}

/// What is wrong with a service, while the rest of it works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trouble {
    findings: Vec<Finding>,
    problems: Vec<Problem>,
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
    /// Services whose troubles changed, each with all that it has now, in words.
    pub troubles: Vec<(ServiceKey, Vec<String>)>,
}

impl Balancer {
    /// Starts from what the kernel holds.
    #[must_use]
    pub fn new(services: Services, kernel: &Tables, capacities: Capacities, named: Named) -> Self {
        Balancer {
            services,
            planner: Planner::restore(kernel, capacities, named),
            complete: false,
            troubles: BTreeMap::new(),
        }
    }

    /// Folds what the watch of Services said.
    pub fn service(&mut self, event: Event<objects::Service>) {
        self.services.service(event);
    }

    /// Folds what the watch of EndpointSlices said.
    pub fn slice(&mut self, event: Event<objects::EndpointSlice>) {
        self.services.slice(event);
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
        for Change {
            key,
            service,
            findings,
        } in changes
        {
            if self.troubles.get(&key).map_or(&[][..], |t| &t.findings) != findings {
                self.troubles.entry(key.clone()).or_default().findings = findings;
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
        self.conclude(plan, services, touched)
    }

    /// Starts again from what the kernel really holds: a step failed, or somebody else wrote there.
    pub fn start_over(&mut self, kernel: &Tables, capacities: Capacities, named: Named) {
        self.planner = Planner::restore(kernel, capacities, named);
        self.complete = false;
        for trouble in self.troubles.values_mut() {
            trouble.problems.clear();
        }
    }

    /// Every service with troubles, in words.
    pub fn troubles(&self) -> impl Iterator<Item = (&ServiceKey, Vec<String>)> {
        self.troubles
            .iter()
            .map(|(key, trouble)| (key, trouble.words()))
    }

    fn conclude(&mut self, plan: Plan, services: usize, mut touched: Vec<ServiceKey>) -> Turn {
        for (key, problems) in plan.problems {
            self.troubles.entry(key.clone()).or_default().problems = problems;
            touched.push(key);
        }
        touched.sort();
        touched.dedup();
        let troubles = touched.into_iter().map(|key| {
            let words = self.troubles.get(&key).map_or(Vec::new(), Trouble::words);
            if words.is_empty() {
                self.troubles.remove(&key);
            }
            (key, words)
        });
        Turn {
            troubles: troubles.collect(),
            steps: plan.steps,
            epoch: plan.epoch,
            services,
        }
    }
}

impl Trouble {
    fn words(&self) -> Vec<String> {
        let findings = self.findings.iter().map(Finding::to_string);
        findings.chain(self.problems.iter().map(words)).collect()
    }
}

/// A problem with its remedy.
fn words(problem: &Problem) -> String {
    match problem {
        Problem::Full { table, .. } => {
            let flag = match table {
                Table::Frontends4 | Table::Frontends6 => "--frontends-max",
                Table::Rings => "--rings-max",
                Table::Backends => "--backends-max",
            };
            format!("{problem}: raise {flag} or remove Services")
        }
        Problem::Taken { .. } => problem.to_string(),
    }
}

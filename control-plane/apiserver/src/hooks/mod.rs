//! Webhooks and policies: the part of admission that asks others, over HTTPS or by looking up their parameters.
//!
//! What concerns whom, and what an answer means, is decided in `admission::hook`.

mod ask;
pub(crate) use ask::{believed, is_trust};
mod bound;
pub(crate) mod conversion;
mod mutations;
mod policies;
pub(crate) mod typing;

use std::sync::Arc;

use admission::hook::matching::Criteria;
use admission::hook::{self, Form, OnFailure, Request, conditions, expression, review, rights};
use admission::{Attributes, Operation};
use api::decode::{self, FieldValidation};
use api::meta;
use api::patch;
use api::status::Status;
use api::table::Resource;
use api::value::{list, text};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::admit::{self, Asked};
use crate::handlers::Call;

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// One webhook of a configuration.
struct Webhook {
    configuration: Arc<Value>,
    index: usize,
}

impl Webhook {
    fn body(&self) -> &Value {
        list(&self.configuration, &["webhooks"])
            .get(self.index)
            .unwrap_or(&Value::Null)
    }

    fn name(&self) -> &str {
        text(self.body(), &["name"])
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::parse(text(self.body(), &["failurePolicy"]))
    }
}

/// All webhooks of a kind, in order of their configurations' names.
fn webhooks(call: &Call, plural: &str, plugin: &str) -> Vec<Webhook> {
    if !call.app.admission.runs(plugin) || call.own {
        return Vec::new();
    }
    let configurations = call.app.mirror.list(plural, "");
    let all = configurations.into_iter().flat_map(|configuration| {
        let count = list(&configuration, &["webhooks"]).len();
        (0..count).map(move |index| Webhook {
            configuration: configuration.clone(),
            index,
        })
    });
    all.collect()
}

/// A request in all forms that its resource is served in.
struct Context<'a> {
    call: &'a Call,
    asked: Asked,
    attributes: Attributes<'a>,
    rows: Vec<&'static Resource>,
    options: Value,
}

impl<'a> Context<'a> {
    fn new(call: &'a Call, asked: Asked, name: &'a str) -> Self {
        let rows = call.app.registry.rows();
        let rows = rows
            .into_iter()
            .filter(|row| row.storage_prefix == call.row.storage_prefix)
            .collect();
        Context {
            call,
            asked,
            attributes: admit::attributes(call, asked.operation, name, ""),
            rows,
            options: options(call, asked),
        }
    }

    fn form(&self, row: &'static Resource) -> Form {
        let sub = self.call.subresource.filter(|sub| !sub.kind.is_empty());
        Form {
            group: row.group,
            version: row.version,
            kind: sub.map_or(row.kind, |sub| sub.kind),
            kind_group_version: sub.and_then(|sub| sub.group_version),
            resource: row.plural,
        }
    }

    fn forms(&self) -> Vec<Form> {
        self.rows.iter().map(|row| self.form(row)).collect()
    }

    fn request<'r>(&'r self, object: &'r Value, old: &'r Value) -> Request<'r> {
        Request {
            attributes: &self.attributes,
            form: self.form(self.call.row),
            object,
            old,
            options: &self.options,
            dry_run: self.asked.dry_run,
        }
    }

    /// What is shown of an object where a subresource is asked for.
    fn shown(&self, object: &Value) -> Value {
        let scales = self.call.subresource.is_some_and(|sub| sub.name == "scale");
        match self.call.row.scale.filter(|_| scales) {
            Some(scale) if object.is_object() => scale.of(object),
            _ => object.clone(),
        }
    }

    /// The row that serves a form.
    fn row(&self, form: Form) -> &'static Resource {
        let mut rows = self.rows.iter();
        let found = rows.find(|row| (row.group, row.version) == (form.group, form.version));
        found.copied().unwrap_or(self.call.row)
    }

    /// The object in the form of another row.
    fn converted(&self, object: &Value, form: Form) -> Value {
        let (own, row) = (self.call.row, self.row(form));
        if row != own && object.is_object() {
            convert(object, own, row)
        } else {
            object.clone()
        }
    }

    /// Whether what is shown is the object itself: all else stays as it was sent.
    fn keeps_changes(&self) -> bool {
        let scales = self.call.subresource.is_some_and(|sub| sub.name == "scale");
        !scales && self.asked.operation != Operation::Connect
    }

    /// Puts what was made of the object, in some form, in its place. Whether that changes it.
    fn adopt(&self, form: Form, made: Value, object: &mut Value) -> Result<bool, Status> {
        let (own, row) = (self.call.row, self.row(form));
        let mut made = if row == own {
            decode::check(own, made, FieldValidation::Ignore)?.object
        } else {
            convert(&made, row, own)
        };
        own.fill(&mut made);
        let changed = made != *object;
        *object = made;
        Ok(changed)
    }
}

/// From the form of one row to that of another which stores the same.
fn convert(object: &Value, from: &'static Resource, to: &'static Resource) -> Value {
    let mut object = object.clone();
    if let Some(conversion) = &from.conversion {
        (conversion.to_stored)(&mut object);
    }
    if let Some(conversion) = &to.conversion {
        (conversion.from_stored)(&mut object);
    }
    api::value::set(&mut object, "apiVersion", to.api_version());
    object
}

/// The options of the verb as an object.
fn options(call: &Call, asked: Asked) -> Value {
    let kind = match asked.operation {
        Operation::Create => "CreateOptions",
        Operation::Update if call.is_patch() => "PatchOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if asked.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    for key in ["fieldManager", "fieldValidation", "propagationPolicy"] {
        let value = call.query.text(key);
        if !value.is_empty() {
            options[key] = value.into();
        }
    }
    options
}

/// Lets policies and webhooks change what is to be stored; `None`: it is a deletion. Whether they did.
pub(crate) async fn mutate(
    call: &Call,
    asked: Asked,
    mut new: Option<&mut Value>,
    old: Option<&Value>,
) -> Result<bool, Status> {
    let policies = mutations::any(call);
    let (mut changed, mut seen) = (false, mutations::Seen::new());
    if let Some(new) = new.as_deref_mut().filter(|_| policies) {
        changed = mutations::mutate(call, asked, new, old, &mut seen, false).await?;
    }
    changed |= ask_all(call, asked, new.as_deref_mut(), old).await?;
    if let Some(new) = new.filter(|_| changed && !seen.is_empty()) {
        mutations::mutate(call, asked, new, old, &mut seen, true).await?;
    }
    Ok(changed)
}

/// Lets webhooks change what is to be stored. Whether they did.
async fn ask_all(
    call: &Call,
    asked: Asked,
    mut new: Option<&mut Value>,
    old: Option<&Value>,
) -> Result<bool, Status> {
    let webhooks = webhooks(call, MUTATING, hook::MUTATING_WEBHOOK.name);
    if webhooks.is_empty() {
        return Ok(false);
    }
    let name = admit::shown_name(call, new.as_deref().or(old).unwrap_or(&Value::Null));
    let context = Context::new(call, asked, &name);
    let old = old.map_or(Value::Null, |old| context.shown(old));
    let mut changed = false;
    let mut again = Vec::new();
    let mut called: Vec<&Webhook> = Vec::new();
    for webhook in &webhooks {
        match mutate_one(&context, webhook, new.as_deref_mut(), &old).await? {
            None => continue,
            Some(false) => {}
            // Those that were asked before may want to see what this one made of it.
            Some(true) => {
                changed = true;
                again.clone_from(&called);
            }
        }
        if text(webhook.body(), &["reinvocationPolicy"]) == "IfNeeded" {
            called.push(webhook);
        }
    }
    for webhook in again {
        mutate_one(&context, webhook, new.as_deref_mut(), &old).await?;
    }
    Ok(changed)
}

/// `None`: it was not asked. Else whether it changed the object.
async fn mutate_one(
    context: &Context<'_>,
    webhook: &Webhook,
    new: Option<&mut Value>,
    old: &Value,
) -> Result<Option<bool>, Status> {
    let object = new.as_deref().map_or(Value::Null, |new| context.shown(new));
    let Some(form) = concerned(context, webhook, &object, old)? else {
        return Ok(None);
    };
    let Some(verdict) = ask(context, webhook, form, &object, old, true).await? else {
        return Ok(Some(false));
    };
    context.call.warn(verdict.warnings);
    if let Some(refusal) = verdict.refusal {
        return Err(refusal);
    }
    let (Some(new), Some(change)) = (new, verdict.patch) else {
        return Ok(Some(false));
    };
    if !context.keeps_changes() {
        return Ok(Some(false));
    }
    let shown = context.converted(&object, form);
    // It answered: what its failurePolicy says of calls that fail is not asked.
    let change = serde_json::from_slice(&change).map_err(Status::internal)?;
    let patched = patch::json_patch_told(&shown, &change).map_err(Status::internal)?;
    context.adopt(form, patched, new).map(Some)
}

/// Lets policies and webhooks look at what is to be stored; `None`: it is a deletion.
pub(crate) async fn validate(
    call: &Call,
    asked: Asked,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let webhooks = webhooks(call, VALIDATING, hook::VALIDATING_WEBHOOK.name);
    let policies = policies::any(call);
    if webhooks.is_empty() && !policies {
        return Ok(());
    }
    let name = admit::shown_name(call, new.or(old).unwrap_or(&Value::Null));
    let context = Context::new(call, asked, &name);
    let shown = |object: Option<&Value>| object.map_or(Value::Null, |object| context.shown(object));
    let (object, old) = (shown(new), shown(old));
    if policies {
        policies::validate(&context, &object, &old).await?;
    }
    let mut concerning = Vec::new();
    for webhook in &webhooks {
        if let Some(form) = concerned(&context, webhook, &object, &old)? {
            concerning.push((webhook, form));
        }
    }
    let answers = concerning
        .into_iter()
        .map(|(webhook, form)| ask(&context, webhook, form, &object, &old, false));
    let mut refusal = None;
    for answer in join_all(answers).await {
        match answer {
            Ok(None) => {}
            Ok(Some(verdict)) => {
                call.warn(verdict.warnings);
                refusal = refusal.or(verdict.refusal);
            }
            Err(status) => refusal = refusal.or(Some(status)),
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// The form in which the webhook is to be asked; `None` where it is not.
fn concerned(
    context: &Context<'_>,
    webhook: &Webhook,
    object: &Value,
    old: &Value,
) -> Result<Option<Form>, Status> {
    let request = context.request(object, old);
    if request.is_exempt() {
        return Ok(None);
    }
    let body = webhook.body();
    let mirror = &context.call.app.mirror;
    let Some(form) = Criteria::of_webhook(body).form(&request, &context.forms(), mirror) else {
        return Ok(None);
    };
    let shown = request.shown(form);
    let (object, old) = (
        context.converted(object, form),
        context.converted(old, form),
    );
    let inputs = expression::Inputs {
        object: &object,
        old: &old,
        request: &shown,
        params: &Value::Null,
        namespace: &Value::Null,
        authority: &rights::Rights::of(request, mirror),
    };
    let vocabulary = expression::Vocabulary::default();
    match conditions::hold(list(body, &["matchConditions"]), &vocabulary, &inputs) {
        Ok(true) => Ok(Some(form)),
        Ok(false) => Ok(None),
        Err(why) if webhook.on_failure() == OnFailure::Fail => Err(Status::forbidden(
            context.call.row,
            request.attributes.name,
            &why,
        )),
        Err(why) => {
            tracing::warn!(webhook = webhook.name(), why, "not asked");
            Ok(None)
        }
    }
}

/// What the webhook says; `None` where it says nothing and that does not matter.
async fn ask(
    context: &Context<'_>,
    webhook: &Webhook,
    form: Form,
    object: &Value,
    old: &Value,
    mutating: bool,
) -> Result<Option<review::Verdict>, Status> {
    let body = webhook.body();
    let uid = uuid::Uuid::new_v4().to_string();
    let answered = async {
        let version = review::version(body)
            .ok_or("webhook does not accept known AdmissionReview versions (v1, v1beta1)")?;
        let request = context.request(object, old);
        let (object, old) = (
            context.converted(object, form),
            context.converted(old, form),
        );
        let question = review::question(version, &request, form, &uid, &object, &old);
        let answer = ask::post(
            &context.call.app,
            &body["clientConfig"],
            ask::seconds(body),
            &question,
        )
        .await?;
        review::verdict(&answer, version, &uid, webhook.name(), mutating)
    };
    match answered.await {
        Ok(verdict) => Ok(Some(verdict)),
        Err(why) => {
            let told = format!(
                "failed calling webhook {}: {why}",
                api::field::quoted(webhook.name())
            );
            if webhook.on_failure() == OnFailure::Fail {
                return Err(Status::internal(told));
            }
            tracing::warn!(
                configuration = meta::name(&webhook.configuration),
                "{told}; its failure is ignored"
            );
            Ok(None)
        }
    }
}

/// Refuses expressions of configurations, policies and claims to devices that cannot be compiled.
pub(crate) fn check(call: &Call, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    if call.subresource.is_some() {
        return Ok(());
    }
    let wrong = match call.row.group {
        hook::GROUP => conditions::faults(call.row.kind, new, old.unwrap_or(&Value::Null)),
        hook::devices::GROUP => hook::devices::faults(call.row.kind, new, old),
        _ => return Ok(()),
    };
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_object(call.row, meta::name(new), &wrong))
    }
}

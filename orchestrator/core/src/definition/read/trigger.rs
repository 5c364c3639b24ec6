//! `triggers:` of a definition, and the document of one trigger as it goes to whoever keeps it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Found;
use super::value::{computed_text, condition, whole, word};
use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::fields::{Fields, expected};
use crate::definition::keys::{BATCH, DEBOUNCE, TRIGGER, TRIGGER_DOCUMENT};
use crate::definition::names::{name, shortened};
use crate::definition::tree::{Kind, Node};
use crate::definition::{code, duration};
use crate::expression::{Expression, Reference, Template};
use crate::ids::WorkflowName;
use crate::time::Span;
use crate::trigger;
use crate::trigger::Spec;
use crate::trigger::spec::{Act, Begin, Conflict, Gather, IdFrom, LONGEST_WAIT, MAX_BATCH, Reuse, Source};

/// Of one definition.
const MAX_TRIGGERS: usize = 50;
const MAX_SUBJECT_BYTES: usize = 255;
const USUAL_BATCH: u32 = 100;
const USUAL_WAIT: Span = Span::from_secs(1);
/// Of a debounce that says nothing: so many times its quiet time.
const USUAL_PATIENCE: u64 = 10;
const IN_SCOPE: &str = "a trigger's expressions see `event.data`, `event.subject`, `event.headers`, `event.time`, \
                        `event.sequence` and `event.stream`";

/// By name, in the order written.
pub(super) fn of_definition(node: &Node, workflow: &str, id: Option<&Node>, found: &mut Found) -> Vec<Spec> {
    let Kind::Object(entries) = &node.kind else {
        expected(node, "`triggers`", "a mapping of names to triggers", found);
        return Vec::new();
    };
    if entries.len() > MAX_TRIGGERS {
        let message = format!(
            "there are {} triggers; at most {MAX_TRIGGERS} are allowed",
            entries.len()
        );
        found.push(Diagnostic::error(code::BAD_VALUE, node.span.clone(), message));
    }
    let mut specs: Vec<Spec> = Vec::new();
    for (key, value) in entries {
        let text = Node {
            span: key.span.clone(),
            kind: Kind::String(key.text.clone()),
        };
        let Some(named) = name(&text, "trigger", found) else {
            continue;
        };
        if specs.iter().any(|spec| *spec.name == *named.text) {
            let message = format!("the trigger `{}` appears twice", named.text);
            found.push(Diagnostic::error(code::DUPLICATE_KEY, key.span.clone(), message));
            continue;
        }
        let Some(fields) = Fields::open(value, &TRIGGER, found) else {
            continue;
        };
        // What is wrong with it is told where it stands.
        let id = id.and_then(|node| computed_text(node, "id", &mut Vec::new()));
        let reader = Reader { node: value, found };
        specs.extend(reader.spec(&fields, &named.text, workflow, id.as_ref()));
    }
    specs
}

/// The canonical form.
pub(crate) fn document(root: &Node, found: &mut Found) -> Option<Spec> {
    let fields = Fields::open(root, &TRIGGER_DOCUMENT, found)?;
    for key in ["trigger", "workflow"] {
        if fields.get(key).is_none() {
            let message = format!("the trigger has no `{key}`");
            found.push(Diagnostic::error(code::MISSING_KEY, root.span.clone(), message));
        }
    }
    let named = fields.get("trigger").and_then(|node| name(node, "trigger", found))?;
    let workflow = fields.get("workflow").and_then(|node| name(node, "workflow", found))?;
    let reader = Reader { node: root, found };
    reader.spec(&fields, &named.text, &workflow.text, fields.get("id_of_input"))
}

struct Reader<'n, 'f> {
    node: &'n Node,
    found: &'f mut Found,
}

impl Reader<'_, '_> {
    fn spec(mut self, fields: &Fields<'_>, named: &str, workflow: &str, id_of_input: Option<&Node>) -> Option<Spec> {
        let before = self.found.len();
        let mut canonical = Map::new();
        let mut put = |key: &str, value: Value| {
            canonical.insert(key.to_owned(), value);
        };
        put("trigger", json!(named));
        put("workflow", json!(workflow));
        let source = self.source(fields);
        source.stream.iter().for_each(|stream| put("stream", json!(&**stream)));
        put("subject", json!(&*source.subject));
        let filter = self.filter(fields);
        filter.iter().for_each(|(_, text)| put("filter", json!(text)));
        let input = fields.get("input").and_then(|node| self.template(node));
        input.iter().for_each(|(_, value)| put("input", value.clone()));
        let signal = self.signal(fields);
        let start = fields.flag("start", self.found);
        if let Some(signal) = &signal {
            put("signal", json!(&**signal));
        } else if fields.get("start").is_some() && !start {
            let message = "the trigger neither starts nor signals";
            self.bad(fields, "start", code::CONTRADICTION, message);
        }
        if signal.is_some() && start {
            put("start", json!(true));
        }
        let act = self.act(fields, signal, start, &mut put);
        let id = self.id(fields, &act, id_of_input, &mut put);
        let begins = [("new", Begin::New), ("all", Begin::All)];
        let begin = word(fields, "from", &begins, self.found).unwrap_or_default();
        if begin == Begin::All {
            if source.stream.is_none() {
                let message = "what no stream keeps cannot be read from the beginning";
                self.bad(fields, "from", code::CONTRADICTION, message);
            }
            put("from", json!("all"));
        }
        let gather = self.gather(fields, &mut put);
        let failed = |finding: &Diagnostic| finding.severity == Severity::Error;
        if self.found[before..].iter().any(failed) {
            return None;
        }
        Some(Spec {
            name: Arc::from(named),
            workflow: WorkflowName::new(workflow),
            source,
            filter: filter.map(|(filter, _)| Arc::new(filter)),
            id,
            input: input.map(|(template, _)| Arc::new(template)),
            act,
            begin,
            gather,
            canonical: Arc::new(Value::Object(canonical)),
        })
    }

    fn bad(&mut self, fields: &Fields<'_>, key: &str, code: code::Code, message: &str) {
        let place = fields.get(key).map_or(self.node.span.clone(), |node| node.span.clone());
        self.found.push(Diagnostic::error(code, place, message));
    }

    fn source(&mut self, fields: &Fields<'_>) -> Source {
        let stream = fields.text("stream", self.found);
        let subject = fields.text("subject", self.found);
        if let Some(stream) = stream {
            let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '.' | '*' | '>' | '/' | '\\');
            if stream.is_empty() || stream.len() > MAX_SUBJECT_BYTES || !stream.chars().all(fits) {
                let message = format!("`{}` cannot be the name of a stream", shortened(stream));
                self.bad(fields, "stream", trigger::code::BAD_SOURCE, &message);
            } else if stream.starts_with("KNARR_") || stream.starts_with("OBJ_KNARR_") {
                let message = format!("the stream `{}` is Knarr's own", shortened(stream));
                self.bad(fields, "stream", trigger::code::OWN_SUBJECT, &message);
            }
        }
        match (stream, subject) {
            (None, None) if fields.get("stream").is_none() && fields.get("subject").is_none() => {
                let message = "the trigger has neither a `stream` nor a `subject`";
                self.bad(fields, "", code::MISSING_KEY, message);
            }
            (_, Some(subject)) => self.subject(fields, subject, stream.is_some()),
            _ => {}
        }
        Source {
            stream: stream.map(Arc::from),
            subject: Arc::from(subject.unwrap_or(">")),
        }
    }

    fn subject(&mut self, fields: &Fields<'_>, subject: &str, of_stream: bool) {
        let tokens: Vec<&str> = subject.split('.').collect();
        let last = tokens.len() - 1;
        let fits = |(at, token): (usize, &&str)| match *token {
            ">" => at == last,
            "*" => true,
            token => !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '*' | '>')),
        };
        if subject.len() > MAX_SUBJECT_BYTES || !tokens.iter().enumerate().all(fits) {
            let message = format!("`{}` is no subject that can be read", shortened(subject));
            return self.bad(fields, "subject", trigger::code::BAD_SOURCE, &message);
        }
        let first = tokens[0];
        let wild = matches!(first, "*" | ">");
        if first == "knarr" || first.starts_with('$') || wild && !of_stream {
            let message = format!("`{}` takes in subjects of Knarr or of the server", shortened(subject));
            return self.bad(fields, "subject", trigger::code::OWN_SUBJECT, &message);
        }
        if !of_stream && fields.get("stream").is_none() {
            let place = fields.get("subject").map(|node| node.span.clone()).unwrap_or_default();
            let message = format!("no stream keeps `{subject}` for this trigger: each message counts at most once");
            let notice = Diagnostic::error(trigger::code::NOT_KEPT, place, message).severity(Severity::Notice);
            self.found
                .push(notice.help("it hears nothing while no replica listens; name a `stream` if each is to count"));
        }
    }

    fn filter(&mut self, fields: &Fields<'_>) -> Option<(Expression, String)> {
        let text = condition(fields, "filter", self.found)?;
        match Expression::compile(&text.text) {
            Ok(filter) => {
                self.in_scope(filter.references().iter(), &fields.get("filter")?.clone(), "event");
                Some((filter, text.text))
            }
            Err(error) => {
                self.found
                    .push(Diagnostic::error(code::EXPRESSION, text.place, error.to_string()));
                None
            }
        }
    }

    fn template(&mut self, node: &Node) -> Option<(Template, Value)> {
        self.template_of(node, "event")
    }

    fn template_of(&mut self, node: &Node, root: &str) -> Option<(Template, Value)> {
        let value = node.to_json();
        match Template::compile(&value) {
            Ok(template) => {
                self.in_scope(template.references().into_iter(), node, root);
                Some((template, value))
            }
            Err(error) => {
                let finding = Diagnostic::error(code::EXPRESSION, node.span.clone(), error.to_string());
                self.found.push(finding);
                None
            }
        }
    }

    fn in_scope<'r>(&mut self, references: impl Iterator<Item = &'r Reference>, node: &Node, root: &str) {
        const OF_EVENT: [&str; 6] = ["data", "subject", "headers", "time", "sequence", "stream"];
        for reference in references {
            let path = reference.path.to_string();
            let mut names = path.split(['.', '[']);
            let problem = match (names.next().unwrap_or_default(), names.next()) {
                (first, _) if first != root => format!("there is no `{}` here", shortened(first)),
                ("event", Some(below)) if !OF_EVENT.contains(&below) => {
                    format!("`event` has no `{}`", shortened(below))
                }
                _ => continue,
            };
            let finding = Diagnostic::error(code::UNKNOWN_NAME, node.span.clone(), problem);
            self.found.push(finding.help(IN_SCOPE));
        }
    }

    fn signal(&mut self, fields: &Fields<'_>) -> Option<Arc<str>> {
        let text = fields.text("signal", self.found)?;
        if text.is_empty() || text.len() > 200 || text.contains('\0') {
            self.bad(
                fields,
                "signal",
                code::BAD_VALUE,
                "a signal has a name of 1 to 200 bytes",
            );
        }
        Some(Arc::from(text))
    }

    fn act(
        &mut self,
        fields: &Fields<'_>,
        signal: Option<Arc<str>>,
        start: bool,
        put: &mut impl FnMut(&str, Value),
    ) -> Act {
        let reuses = [
            ("allow_duplicate", Reuse::AllowDuplicate),
            ("allow_duplicate_failed_only", Reuse::AllowDuplicateFailedOnly),
            ("reject_duplicate", Reuse::RejectDuplicate),
        ];
        let conflicts = [("fail", Conflict::Fail), ("use_existing", Conflict::UseExisting)];
        let reuse = word(fields, "id_reuse", &reuses, self.found);
        let conflict = word(fields, "id_conflict", &conflicts, self.found);
        let starts = signal.is_none() || start;
        for (key, given) in [
            ("id_reuse", reuse.is_some() && !starts),
            ("id_conflict", conflict.is_some() && signal.is_some()),
        ] {
            if given {
                let message = format!("`{key}` is of a trigger that starts runs, and this one signals them");
                self.bad(fields, key, code::CONTRADICTION, &message);
            }
        }
        let said = |key: &str| fields.get(key).and_then(Node::as_str).unwrap_or_default().to_owned();
        if reuse.is_some_and(|reuse| reuse != Reuse::default()) {
            put("id_reuse", json!(said("id_reuse")));
        }
        if conflict.is_some_and(|conflict| conflict != Conflict::default()) {
            put("id_conflict", json!(said("id_conflict")));
        }
        Act {
            start: starts,
            signal,
            reuse: reuse.unwrap_or_default(),
            conflict: conflict.unwrap_or_default(),
        }
    }

    fn id(
        &mut self,
        fields: &Fields<'_>,
        act: &Act,
        id_of_input: Option<&Node>,
        put: &mut impl FnMut(&str, Value),
    ) -> IdFrom {
        if let Some(node) = fields.get("id") {
            let compiled = computed_text(node, "id", self.found).and_then(|node| self.template(&node));
            if let Some((template, value)) = compiled {
                put("id", value);
                return IdFrom::Event(Arc::new(template));
            }
            return IdFrom::Place;
        }
        if act.signal.is_some() {
            let message = "the trigger does not say which run it signals: it has no `id`";
            self.bad(fields, "signal", code::MISSING_KEY, message);
            return IdFrom::Place;
        }
        let Some(node) = id_of_input else {
            return IdFrom::Place;
        };
        // What is wrong with the definition's own is told where it stands.
        match Template::compile(&node.to_json()) {
            Ok(template) => {
                put("id_of_input", node.to_json());
                IdFrom::Input(Arc::new(template))
            }
            Err(_) => IdFrom::Place,
        }
    }

    fn gather(&mut self, fields: &Fields<'_>, put: &mut impl FnMut(&str, Value)) -> Option<Gather> {
        let debounce = fields.get("debounce").map(|node| self.debounce(node));
        let batch = fields.get("batch").and_then(|node| self.batch(node));
        if debounce.is_some() && fields.get("batch").is_some() {
            let message = "a trigger has `debounce` or `batch`, not both";
            self.bad(fields, "batch", code::CONTRADICTION, message);
        }
        let gather = debounce.or(batch)?;
        let (key, longest, said) = match gather {
            Gather::Debounce { quiet, max_wait } => {
                if max_wait < quiet {
                    let message = "`max_wait` is at least as long as `quiet`";
                    self.bad(fields, "debounce", code::BAD_VALUE, message);
                }
                let said = json!({ "quiet": duration::format(quiet), "max_wait": duration::format(max_wait) });
                ("debounce", quiet.max(max_wait), said)
            }
            Gather::Batch { max, wait } => ("batch", wait, json!({ "max": max, "wait": duration::format(wait) })),
        };
        if longest > LONGEST_WAIT {
            let message = format!("`{key}` waits for 30 days at most");
            self.bad(fields, key, code::BAD_VALUE, &message);
        }
        put(key, said);
        Some(gather)
    }

    /// A duration alone is the quiet time.
    fn debounce(&mut self, node: &Node) -> Gather {
        let quiet = match &node.kind {
            Kind::Object(_) => {
                let Some(fields) = Fields::open(node, &DEBOUNCE, self.found) else {
                    return usual(USUAL_WAIT);
                };
                let quiet = fields.duration("quiet", self.found);
                if fields.get("quiet").is_none() {
                    let message = "the debounce has no `quiet`";
                    self.found
                        .push(Diagnostic::error(code::MISSING_KEY, node.span.clone(), message));
                }
                let quiet = quiet.unwrap_or(USUAL_WAIT);
                if let Some(max_wait) = fields.duration("max_wait", self.found) {
                    return Gather::Debounce { quiet, max_wait };
                }
                quiet
            }
            _ => crate::definition::fields::duration(node, "debounce", self.found),
        };
        usual(quiet)
    }

    fn batch(&mut self, node: &Node) -> Option<Gather> {
        let fields = Fields::open(node, &BATCH, self.found)?;
        let max = whole(&fields, "max", MAX_BATCH, self.found).unwrap_or(USUAL_BATCH);
        let wait = fields.duration("wait", self.found).unwrap_or(USUAL_WAIT);
        Some(Gather::Batch { max, wait })
    }
}

fn usual(quiet: Span) -> Gather {
    Gather::Debounce {
        quiet,
        max_wait: Span(quiet.0.saturating_mul(USUAL_PATIENCE))
            .min(LONGEST_WAIT)
            .max(quiet),
    }
}

//! What no single step can tell: whether the names that steps call each other by make a plan that can run.

mod names;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::builder::Links;
use crate::plan::{Data, Form, NO_STEP, Part, Text, What};
use crate::problem::{Problem, Problems, shorten};
use crate::source::{Source, Span};

/// Why nothing outside `finally` can wait for what stands in it.
const RUNS_LAST: &str = "steps in `finally` run after all others; take it out";
/// How many steps of a cycle are written out.
const SHOWN_CYCLE: usize = 12;

/// Checks everything that needs the whole plan, and fills in the edges.
pub(crate) fn check(source: &Source, data: &mut Data, links: &Links, problems: &mut Problems) {
    dependencies(data, links, problems);
    fallbacks(data, links, problems);
    let cyclic = order(data, links, problems);
    data.consumes.clone_from(&links.consumes);
    names::check(source, data, cyclic, problems);
    if !cyclic && !has_templates(data) {
        let name = |text: Text| match text.form() {
            Form::Plain(sym) => Cow::Borrowed(data.str(sym)),
            Form::Template(_) => Cow::Borrowed(""),
        };
        consumes(data, name, problems);
    }
}

/// What is said of a pattern of `artifacts` that the run would refuse, for it leads out of the step's working folder.
pub(crate) fn leads_out(pattern: &str, span: Span) -> Option<Problem> {
    let beneath = pattern.strip_prefix("./").unwrap_or(pattern);
    if !beneath.starts_with('/') && beneath.split('/').all(|part| part != "..") {
        return None;
    }
    let message = format!("the artifact pattern `{}` leads out of the step's working folder", shorten(pattern));
    let hint = "patterns are relative to `cwd`, and go beneath it";
    Some(Problem::error("path-outside", span, message).hint(hint))
}

/// Whether names of resources have variables in them, so that they can be compared only when those are known.
pub(crate) fn has_templates(data: &Data) -> bool {
    let is_template = |text: &Text| matches!(text.form(), Form::Template(_));
    data.looks.iter().any(|look| look.provides.iter().chain(&*look.consumes).any(is_template))
}

fn dependencies(data: &mut Data, links: &Links, problems: &mut Problems) {
    let count = data.steps.len();
    let mut starts = Vec::with_capacity(count + 1);
    let mut edges: Vec<u32> = Vec::with_capacity(links.depends_on.len());
    let mut seen: Vec<u32> = vec![NO_STEP; count];
    let mut links = links.depends_on.iter().peekable();
    for step in 0..count as u32 {
        starts.push(edges.len() as u32);
        while let Some(link) = links.next_if(|link| link.step <= step) {
            let name = data.str(link.name);
            let target = data.step_of[link.name.0 as usize];
            if target == NO_STEP {
                let message = format!("there is no step `{}`", shorten(name));
                let hint = problems.suggest(name, data.ids());
                problems.push(Problem::error("unknown_step", link.span, message).maybe_hint(hint));
            } else if target == step {
                let message = format!("step `{}` depends on itself", shorten(name));
                problems.push(Problem::error("self_dependency", link.span, message).hint("take it out"));
            } else if data.is_finally(target) != data.is_finally(step) {
                problems.push(across(data, step, target, "depends on", link.span));
            } else if seen[target as usize] == step {
                let message = format!("`{}` is listed twice", shorten(name));
                problems.push(Problem::warning("no_effect", link.span, message).hint("take one out"));
            } else {
                seen[target as usize] = step;
                edges.push(target);
            }
        }
    }
    starts.push(edges.len() as u32);
    data.edge_starts = starts;
    data.edges = edges;
}

/// A step that names one on the other side of `finally`.
fn across(data: &Data, step: u32, target: u32, relation: &str, span: Span) -> Problem {
    let (step_id, target_id) = (shorten(data.id(step)), shorten(data.id(target)));
    let message = if data.is_finally(target) {
        format!("`{step_id}` {relation} `{target_id}`, which is in `finally`")
    } else {
        format!("`{step_id}` is in `finally` and {relation} `{target_id}`, which is not")
    };
    Problem::error("finally", span, message).hint(RUNS_LAST)
}

fn fallbacks(data: &mut Data, links: &Links, problems: &mut Problems) {
    let mut spans: BTreeMap<u32, Span> = BTreeMap::new();
    for link in &links.fallbacks {
        let name = data.str(link.name);
        let target = data.step_of[link.name.0 as usize];
        if target == NO_STEP {
            let message = format!("there is no step `{}`", shorten(name));
            let hint = problems.suggest(name, data.ids());
            problems.push(Problem::error("unknown_step", link.span, message).maybe_hint(hint));
            continue;
        }
        if target == link.step {
            let message = format!("step `{}` is its own fallback", shorten(name));
            problems.push(Problem::error("fallback", link.span, message).hint("`retries` runs a step again"));
            continue;
        }
        if data.is_finally(target) != data.is_finally(link.step) {
            problems.push(across(data, link.step, target, "falls back to", link.span));
            continue;
        }
        if let Some(first) = data.originals.get(&target) {
            let owner = data.id(*first);
            let message = format!("`{}` is already the fallback of `{}`", shorten(name), shorten(owner));
            let problem = Problem::error("fallback", link.span, message)
                .hint("a fallback belongs to one step; write a second step");
            problems.push(problem.also(spans.get(first).copied().unwrap_or_default(), "the first one"));
            continue;
        }
        data.originals.insert(target, link.step);
        data.fallbacks.insert(link.step, target);
        spans.insert(link.step, link.span);
    }
    for link in &links.depends_on {
        let target = data.step_of[link.name.0 as usize];
        if let Some(original) = data.originals.get(&target) {
            let (name, original_id) = (shorten(data.str(link.name)), shorten(data.id(*original)));
            let message = format!("`{name}` is a fallback, and nothing can depend on it");
            let hint = format!("depend on `{original_id}`: its dependents go on from its fallback's result");
            problems.push(Problem::error("fallback", link.span, message).hint(hint));
        }
    }
    // A chain that comes back to its beginning: cut it, so that all that follows ends.
    let mut done = BTreeSet::new();
    for first in data.fallbacks.keys().copied().collect::<Vec<_>>() {
        let mut chain = vec![first];
        let mut at = first;
        while let Some(next) = data.fallbacks.get(&at).copied() {
            if done.contains(&next) {
                break;
            }
            if let Some(begin) = chain.iter().position(|step| *step == next) {
                let names: Vec<String> = chain[begin..].iter().map(|step| shorten(data.id(*step))).collect();
                let message = format!("fallbacks go round: {} → {}", names.join(" → "), names[0]);
                let span = spans.get(&at).copied().unwrap_or_default();
                problems
                    .push(Problem::error("fallback", span, message).hint("the last one needs another `on_failure`"));
                data.fallbacks.remove(&at);
                data.originals.remove(&next);
                break;
            }
            chain.push(next);
            at = next;
        }
        done.extend(chain);
    }
}

/// What each step waits for: its dependencies (with what runs in their place) and the step whose fallback it is.
pub(crate) struct Waits<'d> {
    data: &'d Data,
    /// The last of a step's chain of fallbacks; empty where the plan has none.
    last: Vec<u32>,
}

impl<'d> Waits<'d> {
    pub(crate) fn new(data: &'d Data) -> Self {
        let mut last = Vec::new();
        if !data.fallbacks.is_empty() {
            last = (0..data.steps.len() as u32).collect();
            // From the ends of the chains to their beginnings.
            for end in data.originals.keys().filter(|step| !data.fallbacks.contains_key(step)) {
                let mut at = *end;
                while let Some(original) = data.originals.get(&at) {
                    last[*original as usize] = *end;
                    at = *original;
                }
            }
        }
        Self { data, last }
    }

    pub(crate) fn of(&self, step: u32) -> impl Iterator<Item = u32> + '_ {
        let dependencies = self.data.dependencies(step).iter();
        let original = if self.last.is_empty() { None } else { self.data.originals.get(&step).copied() };
        dependencies.map(|step| self.last.get(*step as usize).copied().unwrap_or(*step)).chain(original)
    }
}

/// Puts the steps in an order in which each stands after what it waits for; whether there is none.
fn order(data: &mut Data, links: &Links, problems: &mut Problems) -> bool {
    let count = data.steps.len();
    let waits = Waits::new(data);
    let mut missing = vec![0u32; count];
    let mut starts = vec![0u32; count + 1];
    for step in 0..count as u32 {
        for other in waits.of(step) {
            missing[step as usize] += 1;
            starts[other as usize + 1] += 1;
        }
    }
    for at in 0..count {
        starts[at + 1] += starts[at];
    }
    let mut next = starts.clone();
    let mut followers = vec![0u32; starts[count] as usize];
    for step in 0..count as u32 {
        for other in waits.of(step) {
            followers[next[other as usize] as usize] = step;
            next[other as usize] += 1;
        }
    }
    let mut order: Vec<u32> = (0..count as u32).filter(|step| missing[*step as usize] == 0).collect();
    let mut at = 0;
    while at < order.len() {
        let step = order[at] as usize;
        at += 1;
        for follower in &followers[starts[step] as usize..starts[step + 1] as usize] {
            missing[*follower as usize] -= 1;
            if missing[*follower as usize] == 0 {
                order.push(*follower);
            }
        }
    }
    let cyclic = order.len() < count;
    if cyclic {
        cycles(data, &waits, &missing, links, problems);
    }
    data.order = order;
    cyclic
}

/// Goes through the steps that are left, depth first and without nesting. A step that is met again while it is open
/// closes a cycle; of the cycles that share a step, the first is told.
fn cycles(data: &Data, waits: &Waits<'_>, missing: &[u32], links: &Links, problems: &mut Problems) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let left = |step: u32| missing[step as usize] > 0;
    let mut marks = vec![Mark::New; missing.len()];
    let mut told = vec![false; missing.len()];
    for first in (0..missing.len() as u32).filter(|step| left(*step)) {
        if marks[first as usize] != Mark::New {
            continue;
        }
        let mut open = vec![(first, waits.of(first))];
        marks[first as usize] = Mark::Open;
        while let Some((step, others)) = open.last_mut() {
            let Some(other) = others.next() else {
                marks[*step as usize] = Mark::Done;
                open.pop();
                continue;
            };
            match marks[other as usize] {
                Mark::New if left(other) => {
                    marks[other as usize] = Mark::Open;
                    open.push((other, waits.of(other)));
                }
                // Told steps are passed before the cycle is collected, so that many cycles cost no more than one.
                Mark::Open if !told[other as usize] && !told[*step as usize] => {
                    let begin = open.iter().rposition(|(step, _)| *step == other).unwrap_or(0);
                    let mut cycle: Vec<u32> = open[begin..].iter().map(|(step, _)| *step).collect();
                    if cycle.iter().any(|step| told[*step as usize]) {
                        continue;
                    }
                    cycle.iter().for_each(|step| told[*step as usize] = true);
                    // Begin with the step that stands first in the plan.
                    let least = cycle.iter().enumerate().min_by_key(|(_, step)| **step).map_or(0, |(at, _)| at);
                    cycle.rotate_left(least);
                    report_cycle(data, &cycle, links, problems);
                }
                _ => {}
            }
        }
    }
}

fn report_cycle(data: &Data, cycle: &[u32], links: &Links, problems: &mut Problems) {
    let mut names: Vec<String> = cycle.iter().take(SHOWN_CYCLE).map(|step| shorten(data.id(*step))).collect();
    if cycle.len() > SHOWN_CYCLE {
        names.push(format!("({} more)", cycle.len() - SHOWN_CYCLE));
    }
    let fallback = cycle.iter().any(|step| data.originals.contains_key(step));
    let message = format!("these steps wait for each other: {} → {}", names.join(" → "), names[0]);
    // The place where a step names the next one.
    let place = |at: usize| {
        let (step, next) = (cycle[at], cycle[(at + 1) % cycle.len()]);
        let from = links.depends_on.partition_point(|link| link.step < step);
        let link = links.depends_on[from..]
            .iter()
            .take_while(|link| link.step == step)
            .find(|link| data.step_of[link.name.0 as usize] == next);
        link.map_or(data.steps[step as usize].span, |link| link.span)
    };
    let mut problem = Problem::error("cycle", place(0), message).hint(if fallback {
        "a fallback waits for its step, and the step's dependents wait for the fallback"
    } else {
        "take one of these dependencies out"
    });
    for at in 1..cycle.len().min(SHOWN_CYCLE) {
        let (step, next) = (cycle[at], cycle[(at + 1) % cycle.len()]);
        let what = format!("`{}` waits for `{}`", shorten(data.id(step)), shorten(data.id(next)));
        problem = problem.also(place(at), what);
    }
    problems.push(problem);
}

/// For each question (step, set): whether the step waits, over any number of others, for one of the set.
fn reaches(data: &Data, questions: &[(u32, u32)], sets: &[Vec<u32>]) -> Vec<bool> {
    const WIDTH: usize = 64;
    let waits = Waits::new(data);
    let mut answers = vec![false; questions.len()];
    let mut by_batch: Vec<usize> = (0..questions.len()).collect();
    by_batch.sort_by_key(|at| questions[*at].1);
    let mut asked = by_batch.into_iter().peekable();
    for (batch, members) in sets.chunks(WIDTH).enumerate() {
        let mut own = vec![0u64; data.steps.len()];
        for (bit, steps) in members.iter().enumerate() {
            for step in steps {
                own[*step as usize] |= 1 << bit;
            }
        }
        let mut above = vec![0u64; data.steps.len()];
        for step in &data.order {
            above[*step as usize] =
                waits.of(*step).fold(0, |mask, other| mask | own[other as usize] | above[other as usize]);
        }
        while let Some(at) = asked.next_if(|at| questions[*at].1 as usize / WIDTH == batch) {
            let (step, set) = questions[at];
            answers[at] = above[step as usize] >> (set as usize % WIDTH) & 1 == 1;
        }
    }
    answers
}

/// The expressions in a template or a condition.
pub(crate) fn expressions_in(data: &Data, what: What) -> Vec<u32> {
    match what {
        What::Condition(number) => vec![number],
        What::Template(number) => {
            let parts = data.templates[number as usize].parts.iter();
            parts.filter_map(|part| if let Part::Expression(number) = part { Some(*number) } else { None }).collect()
        }
    }
}

/// What is consumed is provided by something that the step waits for.
pub(crate) fn consumes<'d>(data: &'d Data, name: impl Fn(Text) -> Cow<'d, str>, problems: &mut Problems) {
    if data.consumes.is_empty() {
        return;
    }
    let mut set_of: HashMap<Cow<'d, str>, u32> = HashMap::new();
    let mut sets: Vec<Vec<u32>> = Vec::new();
    for step in 0..data.steps.len() as u32 {
        for provided in &data.look(step).provides {
            let set = *set_of.entry(name(*provided)).or_insert_with(|| {
                sets.push(Vec::new());
                sets.len() as u32 - 1
            });
            sets[set as usize].push(step);
        }
    }
    let mut known: Vec<String> = set_of.keys().map(|name| name.to_string()).collect();
    known.sort_unstable();
    let mut asked = Vec::new();
    let mut questions = Vec::new();
    for (step, text, span) in data.consumes.iter().filter(|(step, _, _)| (*step as usize) < data.steps.len()) {
        let wanted = name(*text);
        match set_of.get(&wanted) {
            None => {
                let message = format!("nothing provides `{}`", shorten(&wanted));
                let near = problems.suggest(&wanted, known.iter().map(String::as_str));
                let hint =
                    near.unwrap_or_else(|| format!("add `provides: [{}]` to the step that makes it", shorten(&wanted)));
                problems.push(Problem::error("nobody_provides", *span, message).hint(hint));
            }
            Some(set) => {
                questions.push((*step, *set));
                asked.push((*step, wanted, *span));
            }
        }
    }
    // What any step outside `finally` makes, those in it find.
    let made_before: Vec<bool> =
        sets.iter().map(|providers| providers.iter().any(|provider| !data.is_finally(*provider))).collect();
    for (at, reached) in reaches(data, &questions, &sets).into_iter().enumerate() {
        let (step, wanted, span) = &asked[at];
        let set = questions[at].1 as usize;
        if reached || data.is_finally(*step) && made_before[set] {
            continue;
        }
        let step_id = shorten(data.id(*step));
        let others = || sets[set].iter().filter(|provider| *provider != step);
        let on_this_side = others().find(|provider| data.is_finally(**provider) == data.is_finally(*step));
        let problem = match on_this_side.or_else(|| others().next()) {
            None => Problem::error(
                "nobody_provides",
                *span,
                format!("only `{step_id}` itself provides `{}`", shorten(wanted)),
            ),
            Some(provider) if data.is_finally(*provider) && !data.is_finally(*step) => {
                let provider = shorten(data.id(*provider));
                let message = format!("`{}` comes from `{provider}`, which is in `finally`", shorten(wanted));
                Problem::error("finally", *span, message).hint(RUNS_LAST)
            }
            Some(provider) => {
                let provider = shorten(data.id(*provider));
                let message =
                    format!("`{}` comes from `{provider}`, which `{step_id}` does not wait for", shorten(wanted));
                Problem::error("no_path", *span, message)
                    .hint(format!("add `{provider}` to the `depends_on` of `{step_id}`"))
            }
        };
        problems.push(problem);
    }
}

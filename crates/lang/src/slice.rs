//! Slices of a plan: which steps run, and what those that do not run leave missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::check::{Waits, expressions_in};
use crate::compile::{Options, fill};
use crate::plan::Data;
use crate::problem::{Problem, Problems, shorten};
use crate::source::Span;

/// A slice of a plan: the steps that meet every one of these that is not empty.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// These steps and everything after them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// These steps and everything before them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Only these steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Only steps with one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Selection {
    /// Whether it is the whole plan.
    pub fn is_all(&self) -> bool {
        self.from.is_empty() && self.to.is_empty() && self.only.is_empty() && self.tags.is_empty()
    }
}

/// For each step, whether it runs. Those in `finally` always do.
pub(crate) fn select(
    data: &Data,
    vars: &BTreeMap<String, String>,
    options: &Options,
    problems: &mut Problems,
) -> Vec<bool> {
    let count = data.steps.len();
    let selection = &options.selection;
    let mut selected = vec![true; count];
    let mut named = |ids: &[String], option: &str| {
        let mut set = vec![false; count];
        for id in ids {
            match data.find(id) {
                Some(step) if data.is_finally(step) => {
                    let message = format!("--{option}: `{}` is in `finally`, which always runs", shorten(id));
                    let problem = Problem::error("finally", Span::default(), message).nowhere();
                    problems.push(problem.hint("name steps outside `finally`"));
                }
                Some(step) => set[step as usize] = true,
                None => {
                    let message = format!("--{option}: there is no step `{}`", shorten(id));
                    let hint = problems.suggest(id, data.ids());
                    let problem = Problem::error("unknown_step", Span::default(), message).nowhere();
                    problems.push(problem.maybe_hint(hint));
                }
            }
        }
        set
    };
    let meet = |selected: &mut [bool], set: &[bool]| {
        selected.iter_mut().zip(set).for_each(|(selected, member)| *selected &= member);
    };
    let waits = Waits::new(data);
    if !selection.from.is_empty() {
        let mut set = named(&selection.from, "from");
        for step in &data.order {
            if waits.of(*step).any(|other| set[other as usize]) {
                set[*step as usize] = true;
            }
        }
        meet(&mut selected, &set);
    }
    if !selection.to.is_empty() {
        let mut set = named(&selection.to, "to");
        for step in data.order.iter().rev() {
            if set[*step as usize] {
                waits.of(*step).for_each(|other| set[other as usize] = true);
                // What a step waits for includes the step in whose place a fallback runs.
                data.dependencies(*step).iter().for_each(|other| set[*other as usize] = true);
            }
        }
        meet(&mut selected, &set);
    }
    if !selection.only.is_empty() {
        let set = named(&selection.only, "only");
        meet(&mut selected, &set);
    }
    if !selection.tags.is_empty() {
        let mut known = BTreeSet::new();
        let mut set = vec![false; count];
        for (step, member) in set.iter_mut().enumerate().filter(|(step, _)| !data.is_finally(*step as u32)) {
            for tag in &data.look(step as u32).tags {
                let tag = fill(data, *tag, vars);
                *member |= selection.tags.contains(&tag);
                known.insert(tag);
            }
        }
        for tag in selection.tags.iter().filter(|tag| !known.contains(*tag)) {
            let message = format!("--tag: no step has the tag `{}`", shorten(tag));
            let hint = problems.suggest(tag, known.iter().map(String::as_str));
            let problem = Problem::error("unknown_tag", Span::default(), message).nowhere();
            problems.push(problem.maybe_hint(hint));
        }
        meet(&mut selected, &set);
    }
    // A chain's fallbacks stand in no particular order in the plan, but in the order of waiting.
    for step in &data.order {
        if let Some(original) = data.originals.get(step)
            && selected[*original as usize]
        {
            selected[*step as usize] = true;
        }
    }
    for (first, last) in &options.kept {
        let end = (*last as usize + 1).min(count);
        selected.iter_mut().take(end).skip(*first as usize).for_each(|member| *member = false);
    }
    let is_in_slice = |step: u32| selected[step as usize] && !data.is_finally(step);
    if !selection.is_all() && !(0..count as u32).any(is_in_slice) && !problems.has_errors() {
        let problem = Problem::error("empty_slice", Span::default(), "no step meets all that was asked for");
        problems.push(problem.nowhere().hint("--from, --to, --only and --tag together select what meets every one"));
    }
    for step in data.finally.clone() {
        selected[step as usize] = true;
    }
    for (fallback, original) in &data.originals {
        if selected[*fallback as usize] && !selected[*original as usize] {
            let (fallback_id, original_id) = (shorten(data.id(*fallback)), shorten(data.id(*original)));
            let message =
                format!("`{fallback_id}` is the fallback of `{original_id}`, which is left out: it will be skipped");
            problems.push(Problem::warning("no_effect", data.steps[*fallback as usize].span, message));
        }
    }
    selected
}

/// Steps that do not run have no outputs, unless an earlier run has them.
pub(crate) fn kept_outputs(data: &Data, selected: &[bool], options: &Options, problems: &mut Problems) {
    if options.outputs_available || !selected.contains(&false) {
        return;
    }
    for occurrence in &data.occurrences {
        let Some(step) = occurrence.in_step().filter(|step| selected[*step as usize]) else { continue };
        for number in expressions_in(data, occurrence.what) {
            let references = &data.expressions[number as usize].parsed.references;
            for id in references.ids_with_outputs() {
                if data.find(id).is_none_or(|target| selected[target as usize]) {
                    continue;
                }
                let (step_id, shown) = (shorten(data.id(step)), shorten(id));
                let message = format!("`{step_id}` needs the outputs of `{shown}`, which is left out of this slice");
                let hint = "take it in, or name the run that has them: --outputs-from RUN";
                if !data.is_finally(step) {
                    problems.push(Problem::error("outside_slice", occurrence.span, message).hint(hint));
                } else if !references.guards(id) {
                    let hint = "`has()` tells whether they are there; without it the expression fails";
                    problems.push(Problem::warning("outside_slice", occurrence.span, message).hint(hint));
                }
            }
        }
    }
}

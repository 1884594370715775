//! Texts that are almost plans: grown from a grammar or taken from the repository, then changed a little.

use super::{Kind, MAX_BYTES};

/// Changes to one text at most.
const MAX_CHANGES: usize = 6;

/// How deep a grown expression or value is at most, before it is nested on purpose.
const DEPTH: usize = 5;

/// Words that mean something somewhere in a plan.
const WORDS: &[&str] = &[
    "plan_id",
    "version",
    "description",
    "metadata",
    "labels",
    "vars",
    "inputs",
    "outputs",
    "finally",
    "sla",
    "type",
    "default",
    "enum",
    "pattern",
    "properties",
    "items",
    "required",
    "globals",
    "locks",
    "steps",
    "id",
    "name",
    "command",
    "args",
    "shell",
    "uses",
    "with",
    "cwd",
    "env",
    "depends_on",
    "condition",
    "timeout_sec",
    "retries",
    "retry_delay_sec",
    "retry_backoff",
    "retry_jitter",
    "accept_exit_codes",
    "stop_grace_sec",
    "critical",
    "critical_grace_period_sec",
    "on_failure",
    "fallback_step",
    "provides",
    "consumes",
    "lock_wait_timeout_sec",
    "artifacts",
    "detach",
    "tags",
    "ui_hints",
    "group",
    "weight",
    "max_concurrency",
    "default_retries",
    "needs",
    "abort",
    "continue",
    "skip_dependents",
    "exponential",
    "act",
    "a",
    "b",
    "c",
    "null",
    "true",
    "false",
    "~",
    "0",
    "-1",
    "1e309",
    "0.1",
    "99999999999999999999",
    "0x1F",
    "1_000",
    ".inf",
    ".nan",
    "2026-11-20",
    "''",
    "\"\"",
    "\u{feff}",
    "\u{202e}",
    "\u{0}",
    "\u{1f600}",
    "é",
    "\\u0000",
    "\\ud800",
    "<<",
    "!!binary",
    "!a",
    "&a",
    "*a",
    "---",
    "...",
    "%YAML 1.2",
    "|",
    ">-",
    "? ",
    ": ",
    "- ",
    "# x",
    "\t",
    "\r\n",
    "${",
    "$${",
    "${A}",
    "${A:-",
    "${A:-x}",
    "${{",
    "}}",
    "${{ vars.a }}",
    "${secret.X}",
    "${{ steps.a.outputs.size }}",
];

/// Pieces of expressions.
const ATOMS: &[&str] = &[
    "1",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "1u",
    "18446744073709551615u",
    "0.5",
    "1e308",
    "true",
    "false",
    "null",
    "'x'",
    "\"y\"",
    "r'\\d'",
    "b'z'",
    "'''t'''",
    "vars.name",
    "vars['name']",
    "steps.a.status",
    "steps.a.outputs.size",
    "steps.a.outputs.list",
    "steps.a.outputs.deep.x",
    "run.id",
    "run.plan_dir",
    "inputs.x",
    "item",
    "[]",
    "{}",
    "x",
    "size",
    "type",
    "duration('1h')",
    "timestamp('2026-11-20T00:00:00Z')",
];

const OPERATORS: &[&str] =
    &["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", " in ", ".", "?", ":", ",", "!", "!!!"];

const CALLS: &[&str] = &[
    "size",
    "has",
    "string",
    "int",
    "double",
    "uint",
    "matches",
    "startsWith",
    "endsWith",
    "contains",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
    "type",
    "dyn",
    "max",
    "min",
    "split",
    "join",
    "lowerAscii",
    "replace",
    "f",
];

/// Makes texts; the same seed makes the same ones.
pub struct Mutator {
    state: u64,
    corpus: Vec<(Kind, String)>,
}

impl Mutator {
    pub fn new(seed: u64, corpus: &[(Kind, String)]) -> Mutator {
        Mutator { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, corpus: corpus.to_vec() }
    }

    /// The next text.
    pub fn next(&mut self) -> (Kind, Vec<u8>) {
        let kind = Kind::ALL[self.below(Kind::ALL.len())];
        let mut text = match kind {
            Kind::Expression => self.expression(DEPTH).into_bytes(),
            Kind::Json => self.plan(true).into_bytes(),
            Kind::Yaml => {
                if self.chance(3) {
                    self.plan(false).into_bytes()
                } else {
                    self.taken_from_corpus(Kind::Yaml)
                }
            }
        };
        if self.chance(40) {
            text = self.bomb(kind).into_bytes();
        } else if !self.chance(4) {
            for _ in 0..=self.below(MAX_CHANGES) {
                self.change(&mut text, kind);
            }
        }
        text.truncate(MAX_BYTES);
        (kind, text)
    }

    fn taken_from_corpus(&mut self, kind: Kind) -> Vec<u8> {
        let of_kind: Vec<usize> = (0..self.corpus.len()).filter(|number| self.corpus[*number].0 == kind).collect();
        match of_kind.len() {
            0 => self.plan(false).into_bytes(),
            count => {
                let chosen = of_kind[self.below(count)];
                self.corpus[chosen].1.clone().into_bytes()
            }
        }
    }

    /// A plan that could be one. JSON is YAML too, so the flow style serves both.
    fn plan(&mut self, is_json: bool) -> String {
        let count = 1 + self.below(6);
        let mut steps = Vec::new();
        for number in 0..count {
            let mut fields = vec![format!("\"id\": \"s{number}\""), "\"command\": \"x\"".to_owned()];
            if number > 0 && self.chance(2) {
                fields.push(format!("\"depends_on\": [\"s{}\"]", self.below(number)));
                if self.chance(2) {
                    let text = if !self.chance(4) {
                        format!("steps.s{}.status == 'succeeded'", self.below(number))
                    } else {
                        self.expression(2)
                    };
                    fields.push(format!("\"condition\": {}", quoted(&text)));
                }
            }
            // A field that means nothing there is an error, and most plans should have none.
            let strange = if self.chance(4) { self.below(3) } else { 0 };
            for _ in 0..strange {
                let word = WORDS[self.below(WORDS.len())];
                let value = self.value(3);
                fields.push(format!("{}: {value}", quoted(word)));
            }
            if self.chance(6) {
                let text = format!("${{{{ {} }}}}", self.expression(1));
                fields.push(format!("\"args\": [\"a\", {}]", quoted(&text)));
            }
            steps.push(format!("{{{}}}", fields.join(", ")));
        }
        let separator = if is_json { ", " } else { ",\n " };
        let mut fields = vec!["\"plan_id\": \"p\"".to_owned(), format!("\"steps\": [{}]", steps.join(separator))];
        if self.chance(2) {
            fields.push(format!("\"vars\": {{\"A\": {}}}", self.value(0)));
        }
        if self.chance(4) {
            fields.push(format!("\"metadata\": {}", self.value(DEPTH)));
        }
        format!("{{{}}}", fields.join(separator))
    }

    /// A JSON value.
    fn value(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => self.below(100).to_string(),
            1 => ["true", "false", "null", "-1", "1e400", "0.5", "12345678901234567890123"][self.below(7)].to_owned(),
            2 => quoted(&self.expression(1)),
            3 | 4 => quoted(WORDS[self.below(WORDS.len())]),
            5 => {
                let items: Vec<String> = (0..self.below(4)).map(|_| self.value(depth - 1)).collect();
                format!("[{}]", items.join(", "))
            }
            _ => {
                let items: Vec<String> = (0..self.below(4))
                    .map(|_| format!("{}: {}", quoted(WORDS[self.below(WORDS.len())]), self.value(depth - 1)))
                    .collect();
                format!("{{{}}}", items.join(", "))
            }
        }
    }

    fn expression(&mut self, depth: usize) -> String {
        if depth == 0 || self.chance(4) {
            return ATOMS[self.below(ATOMS.len())].to_owned();
        }
        let depth = depth - 1;
        match self.below(8) {
            0 | 1 => {
                let operator = OPERATORS[self.below(OPERATORS.len())];
                format!("{} {operator} {}", self.expression(depth), self.expression(depth))
            }
            2 => format!("({})", self.expression(depth)),
            3 => format!("{}({})", CALLS[self.below(CALLS.len())], self.expression(depth)),
            4 => {
                let call = CALLS[self.below(CALLS.len())];
                format!("{}.{call}(x, {})", self.expression(depth), self.expression(depth))
            }
            5 => format!("{} ? {} : {}", self.expression(depth), self.expression(depth), self.expression(depth)),
            6 => format!("[{}, {}][{}]", self.expression(depth), self.expression(depth), self.expression(depth)),
            _ => format!("{{'k': {}}}['k']", self.expression(depth)),
        }
    }

    /// A text that is small to write and large to understand.
    fn bomb(&mut self, kind: Kind) -> String {
        let many = 1 << (4 + self.below(15));
        if kind == Kind::Expression {
            let unit = ["(", "[", "!", "-", "{'a':", "a.", "a[", "1+", "a?b:", "f(", "x.map(x,", "[1].all(x,", "'"];
            let unit = unit[self.below(unit.len())];
            let middle = self.expression(1);
            return format!("{}{middle}{}", unit.repeat(many / unit.len()), ")".repeat(self.below(many)));
        }
        match self.below(7) {
            0 => {
                let unit = [
                    "[", "{\"a\":", "- ", "? ", "{a: ", "[{", "- - [", "'", "\"", "!a ", "&a ", "*a ", "\t", "|\n",
                    ": ",
                ];
                unit[self.below(unit.len())].repeat(many)
            }
            1 => {
                let mut text = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
                for number in 1..many.min(2000) {
                    let before = format!("*a{}, ", number - 1).repeat(8);
                    text.push_str(&format!("a{number}: &a{number} [{before}]\n"));
                }
                text
            }
            2 => format!("plan_id: p\nsteps:\n{}", "- {id: a, command: b}\n".repeat(many.min(30_000))),
            3 => {
                let steps: Vec<String> = (0..many.min(10_000))
                    .map(|number| {
                        format!("{{\"id\":\"s{number}\",\"command\":\"x\",\"depends_on\":[\"s{}\"]}}", number + 1)
                    })
                    .collect();
                format!("{{\"plan_id\":\"p\",\"steps\":[{}]}}", steps.join(","))
            }
            4 => format!("{{\"plan_id\":\"p\",\"metadata\":{}1{},\"steps\":[]}}", "[".repeat(many), "]".repeat(many)),
            5 => {
                let value = "${A}".repeat(many.min(100_000));
                format!(
                    "plan_id: p\nvars: {{A: {}, B: '{value}'}}\nsteps: [{{id: a, command: '${{B}}'}}]\n",
                    "x".repeat(many)
                )
            }
            _ => {
                let chain: String = (1..many.min(5_000))
                    .map(|number| format!("  V{number}: '${{V{}}}${{V{}}}'\n", number - 1, number - 1))
                    .collect();
                format!("plan_id: p\nvars:\n  V0: x\n{chain}steps: [{{id: a, command: '${{V40}}'}}]\n")
            }
        }
    }

    fn change(&mut self, text: &mut Vec<u8>, kind: Kind) {
        let at = self.below(text.len() + 1);
        let end = (at + self.below(40)).min(text.len());
        match self.below(9) {
            0 if at < text.len() => text[at] ^= 1 << self.below(8),
            1 if at < text.len() => text[at] = self.below(256) as u8,
            2 => drop(text.drain(at..end)),
            3 => {
                let piece = text[at..end].to_vec();
                let times = 1 << self.below(10);
                let place = self.below(text.len() + 1);
                drop(text.splice(place..place, piece.repeat(times)));
            }
            4 | 5 => {
                let word = if kind == Kind::Expression { [ATOMS, OPERATORS, CALLS][self.below(3)] } else { WORDS };
                let word = word[self.below(word.len())];
                drop(text.splice(at..at, word.bytes()));
            }
            6 => {
                let word = WORDS[self.below(WORDS.len())];
                drop(text.splice(at..end, word.bytes()));
            }
            7 => {
                let unit: &[u8] = [&b"["[..], b"{", b"(", b"- ", b"  ", b"\n", b"\"", b"'"][self.below(8)];
                drop(text.splice(at..at, unit.repeat(1 << self.below(14))));
            }
            _ => {
                let other = self.taken_from_corpus(Kind::Yaml);
                let from = self.below(other.len());
                let to = (from + self.below(200)).min(other.len());
                drop(text.splice(at..at, other[from..to].iter().copied()));
            }
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 24) % limit.max(1) as u64) as usize
    }

    /// True once in so many times.
    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// The text as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_texts_and_another_one_others() {
        let corpus = vec![(Kind::Yaml, "plan_id: p\nsteps: []\n".to_owned())];
        let texts = |seed| {
            let mut mutator = Mutator::new(seed, &corpus);
            (0..50).map(|_| mutator.next()).collect::<Vec<_>>()
        };
        assert_eq!(texts(7), texts(7));
        assert_ne!(texts(7), texts(8));
        assert!(texts(7).iter().all(|(_, text)| text.len() <= MAX_BYTES));
    }
}

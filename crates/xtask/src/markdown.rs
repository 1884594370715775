//! Links between the pages of the repository: every relative one leads to a file that is there.

use std::path::Path;

/// The relative links of a page that lead nowhere, each with its line.
pub fn broken_links(page: &Path, text: &str) -> Vec<(usize, String)> {
    let folder = page.parent().unwrap_or(Path::new(""));
    links(text)
        .into_iter()
        .filter(|(_, link)| {
            let path = link.split('#').next().unwrap_or_default();
            !path.is_empty() && !folder.join(path).exists()
        })
        .collect()
}

/// The relative links of a page outside its code blocks.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let link = part.split([')', ' ']).next().unwrap_or_default();
            let elsewhere = link.contains("://") || link.starts_with("mailto:") || link.contains('`');
            if !elsewhere {
                found.push((number + 1, link.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_code_and_to_elsewhere_are_left_alone() {
        let page = "See [a](one.md#part) and [b](https://x.org/y).\n```\n[c](two.md)\n```\n[d](../three \"t\")\n";
        assert_eq!(links(page), [(1, "one.md#part".to_owned()), (5, "../three".to_owned())]);
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = "[here](Cargo.toml) [above](#top)\n[gone](no-such-page.md)";
        let broken = broken_links(&folder.join("page.md"), page);
        assert_eq!(broken, [(2, "no-such-page.md".to_owned())]);
    }
}

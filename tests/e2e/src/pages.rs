//! What a page of the documentation has in it: its blocks of code, their commands, its words and links.

/// A command, and what the page says that it prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The command, without its prompt.
    pub command: String,
    /// The lines below it.
    pub shown: String,
}

/// What stands in the blocks of this language.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    // Every other fence ends a block.
    let parts = page.split("\n```").skip(1).step_by(2);
    parts.filter_map(|part| Some(part.strip_prefix(language)?.strip_prefix('\n')?.to_owned())).collect()
}

/// The commands of the `console` blocks. A line that begins with `$ ` is one; where it ends in `\`, it goes on in the next.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::<Step>::new();
    for block in blocks(page, "console") {
        for line in block.lines() {
            let goes_on = steps.last().is_some_and(|step| step.command.ends_with('\\'));
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), shown: String::new() });
            } else if let Some(step) = steps.last_mut() {
                let part = if goes_on { &mut step.command } else { &mut step.shown };
                *part = format!("{part}\n{line}");
            }
        }
    }
    steps
}

/// The commands of `sh` blocks, without comments.
pub fn shell_lines(page: &str) -> Vec<String> {
    let blocks = blocks(page, "sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    let lines = lines.map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The page without its blocks of code.
pub fn prose(page: &str) -> String {
    let mut inside = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        inside ^= is_fence;
        !inside && !is_fence
    });
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// What is between backticks in prose.
pub fn code_spans(page: &str) -> Vec<String> {
    prose(page).lines().flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// Where the links of prose lead.
pub fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let ends = prose.split("](").skip(1);
    ends.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// What each heading can be linked to by, as GitHub makes it.
pub fn anchors(page: &str) -> Vec<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|char| char.is_alphanumeric() || [' ', '-', '_'].contains(char));
        kept.map(|char| if char == ' ' { '-' } else { char }).collect()
    };
    headings.map(anchor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A *page*: `x.y`\n\nSee [there](b.md#c) and `one` or `two`.\n\n```console\n$ a \\\n    b\nshown\n$ c\n```\n\n\
                        ```sh\n# nothing\nd e   # why\n```\n";

    #[test]
    fn the_parts_of_a_page_are_told_apart() {
        let step = |command: &str, shown: &str| Step { command: command.to_owned(), shown: shown.to_owned() };
        assert_eq!(steps(PAGE), [step("a \\\n    b", "\nshown"), step("c", "")]);
        assert_eq!(shell_lines(PAGE), ["d e"]);
        assert_eq!(code_spans(PAGE), ["x.y", "one", "two"]);
        assert_eq!(links(PAGE), ["b.md#c"]);
        assert_eq!(anchors(PAGE), ["a-page-xy"]);
    }
}

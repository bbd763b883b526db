//! The machine's own Debian sources, for another architecture: no server's name is known here.

/// A file for apt's folder of sources.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// `list` or `sources`, which tells apt the form.
    pub extension: &'static str,
    pub contents: String,
}

/// What of a source file of the machine is of use: the entries of the release `codename` for the
/// component `main`, each with `architecture` in place of its own and without the extra indices
/// (descriptions, icons) that other programs ask for.
pub fn derive(text: &str, codename: &str, architecture: &str) -> Vec<Source> {
    let stanzas = text
        .split("\n\n")
        .filter_map(|stanza| from_stanza(stanza, codename, architecture))
        .map(|contents| Source {
            extension: "sources",
            contents,
        });
    let lines = text
        .lines()
        .filter_map(|line| from_line(line, codename, architecture))
        .map(|contents| Source {
            extension: "list",
            contents,
        });
    stanzas.chain(lines).collect()
}

/// The release itself, by name or by rank, its updates and its security fixes; not what is not part
/// of it, such as backports.
fn is_release(suite: &str, codename: &str) -> bool {
    let suite = suite.trim_end_matches('/');
    let base = ["-updates", "-security", "/updates"]
        .iter()
        .find_map(|suffix| suite.strip_suffix(suffix))
        .unwrap_or(suite);
    base == codename || ["stable", "testing", "unstable", "sid"].contains(&base)
}

/// `deb [options] URI suite components`
fn from_line(line: &str, codename: &str, architecture: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    if !is_release(suite, codename) || !words.any(|component| component == "main") {
        return None;
    }
    let mut kept = String::new();
    for option in options.split_whitespace() {
        let key = option.split(['=', '+', '-']).next().unwrap_or_default();
        if !["arch", "target", "lang"].contains(&key) {
            kept = kept + option + " ";
        }
    }
    Some(format!(
        "deb [{kept}arch={architecture} target=Packages] {uri} {suite} main\n"
    ))
}

/// Fields, of which some go on in lines that begin with a space.
fn from_stanza(stanza: &str, codename: &str, architecture: &str) -> Option<String> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in stanza.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            *value = format!("{value}\n{line}");
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let mut field = |key: &str| {
        let at = fields.iter().position(|(other, _)| other == key)?;
        Some(fields.swap_remove(at).1)
    };
    let has = |value: &str, word: &str| value.split_whitespace().any(|other| other == word);
    let (types, suites, components) = (field("types")?, field("suites")?, field("components")?);
    if field("enabled").is_some_and(|value| value == "no")
        || !has(&types, "deb")
        || !has(&components, "main")
    {
        return None;
    }
    let suites: Vec<_> = suites
        .split_whitespace()
        .filter(|suite| is_release(suite, codename))
        .collect();
    if suites.is_empty() {
        return None;
    }
    for key in ["architectures", "targets", "languages"] {
        field(key);
    }
    let mut contents = format!(
        "types: deb\nsuites: {}\ncomponents: main\narchitectures: {architecture}\ntargets: Packages\n",
        suites.join(" ")
    );
    fields.sort();
    for (key, value) in fields {
        contents += &format!("{key}: {value}\n");
    }
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(text: &str) -> Vec<(&'static str, String)> {
        let sources = derive(text, "bookworm", "arm64").into_iter();
        sources
            .map(|source| (source.extension, source.contents))
            .collect()
    }

    #[test]
    fn the_one_line_form() {
        let text = "# deb http://old.example/debian bookworm main\n\
            deb-src http://mirror.example/debian bookworm main\n\
            deb [ arch=amd64 signed-by=/a/key.gpg ] http://mirror.example/debian bookworm main contrib\n\
            deb http://mirror.example/debian bookworm-backports main\n\
            deb http://other.example/tool bookworm stable\n\
            deb http://mirror.example/security bookworm-security main # fixes\n";
        let line = |text: &str| ("list", text.to_owned());
        assert_eq!(
            derived(text),
            [
                line(
                    "deb [signed-by=/a/key.gpg arch=arm64 target=Packages] \
                     http://mirror.example/debian bookworm main\n"
                ),
                line(
                    "deb [arch=arm64 target=Packages] \
                     http://mirror.example/security bookworm-security main\n"
                ),
            ]
        );
    }

    #[test]
    fn the_form_in_stanzas() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\n\
            Suites: bookworm bookworm-updates bookworm-backports\nComponents: main contrib\n\
            Architectures: amd64\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n\
            Types: deb\nURIs: http://other.example/tool\nSuites: nodistro\nComponents: main\n\n\
            Enabled: no\nTypes: deb\nURIs: http://off.example/\nSuites: bookworm\nComponents: main\n";
        assert_eq!(
            derived(text),
            [(
                "sources",
                "types: deb\nsuites: bookworm bookworm-updates\ncomponents: main\n\
                 architectures: arm64\ntargets: Packages\nsigned-by: \n \
                 -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\nuris: http://mirror.example/debian\n"
                    .to_owned()
            )]
        );
    }

    #[test]
    fn a_release_may_go_by_its_rank() {
        assert!(is_release("stable", "bookworm"));
        assert!(is_release("stable-security", "bookworm"));
        assert!(is_release("bookworm/updates", "bookworm"));
        assert!(!is_release("bookworm-backports", "bookworm"));
        assert!(!is_release("bookworm-pgdg", "bookworm"));
        assert!(!is_release("noble", "bookworm"));
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert_eq!(derived(""), []);
        assert_eq!(derived("deb\ndeb [\ndeb [x\n: \n \n"), []);
    }
}

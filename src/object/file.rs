//! Files.

use std::path::PathBuf;

use super::{Key, Kind, Lifetime, Phase, Verb, shell_quoted};

/// A file that another daemon reads: nfdhcpd's binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its place.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

impl Kind for File {
    const PHASE: Phase = Phase::Files;

    fn key(&self) -> Key<'_> {
        Key::File(&self.path)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::Own
    }

    fn command(&self, verb: Verb) -> String {
        let path = shell_quoted(&self.path.to_string_lossy());
        match verb {
            Verb::Add => format!("cat > {path} <<'EOF'\n{}EOF\nchmod 644 {path}", self.text),
            Verb::Remove => format!("rm -f {path}"),
        }
    }

    fn line(&self, verb: Verb) -> String {
        match verb {
            Verb::Add => format!("binding {}", self.path.display()),
            Verb::Remove => self.command(verb),
        }
    }
}

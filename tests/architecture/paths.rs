//! Source text → the paths that it names, with their lines.

/// What the rules need to know of one file.
pub(crate) struct SourceFile {
    /// Path below `src/`.
    pub(crate) name: String,
    /// The module that the file is: `["proxy", "forward"]`; empty for `lib.rs` and `main.rs`.
    pub(crate) module: Vec<String>,
    /// Every path of two or more segments outside test code. Paths within the crate start with `crate`.
    pub(crate) paths: Vec<Named>,
    /// Lines with the `async` or `await` keyword outside test code.
    pub(crate) async_lines: Vec<usize>,
    /// Modules declared `#[cfg(test)] mod NAME;`, as `a/b/NAME`.
    pub(crate) test_modules: Vec<String>,
}

/// A path and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Counted from 1.
    pub(crate) line: usize,
    /// `crate::a::b` or `std::fs::File`, split.
    pub(crate) segments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Ident(String),
    /// `::`
    PathSep,
    Punct(char),
}

struct Placed {
    token: Token,
    line: usize,
}

impl SourceFile {
    /// Reads the text of the file `name`, a path below `src/`.
    pub(crate) fn read(name: &str, text: &str) -> Self {
        let module = module_of(name);
        let mut reader = Reader {
            tokens: tokenize(text),
            at: 0,
            file: Self { name: name.to_owned(), module, paths: vec![], async_lines: vec![], test_modules: vec![] },
            inline: Vec::new(),
            depth: 0,
        };
        reader.run();
        reader.file
    }

    /// Whether the file is the module `a/b/NAME` or within it.
    pub(crate) fn is_within(&self, module: &str) -> bool {
        let own = self.module.join("/");
        own == module || own.strip_prefix(module).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// `a/b.rs` and `a/b/mod.rs` are both `[a, b]`.
fn module_of(name: &str) -> Vec<String> {
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    let mut parts: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") || matches!(stem, "lib" | "main") {
        parts.pop();
    }
    parts
}

struct Reader {
    tokens: Vec<Placed>,
    at: usize,
    file: SourceFile,
    /// Inline modules we are in, each with the brace depth outside it.
    inline: Vec<(String, usize)>,
    depth: usize,
}

impl Reader {
    fn run(&mut self) {
        while self.at < self.tokens.len() {
            if self.starts_test_attribute() {
                self.skip_test_item();
                continue;
            }
            match self.token(0) {
                Some(Token::Punct('{')) => self.depth += 1,
                Some(Token::Punct('}')) => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inline.pop_if(|(_, depth)| *depth == self.depth);
                }
                Some(Token::Ident(word)) if word == "async" || word == "await" => {
                    let line = self.tokens[self.at].line;
                    self.file.async_lines.push(line);
                }
                Some(Token::Ident(word)) if word == "mod" => self.enter_inline_module(),
                Some(Token::Ident(_)) if !self.continues_a_path() => {
                    self.path(&[]);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn token(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|placed| &placed.token)
    }

    fn ident(&self, ahead: usize) -> Option<&str> {
        match self.token(ahead) {
            Some(Token::Ident(word)) => Some(word),
            _ => None,
        }
    }

    fn is(&self, ahead: usize, punct: char) -> bool {
        self.token(ahead) == Some(&Token::Punct(punct))
    }

    /// `<T>::x` or `value.field::<X>`: not the start of a path.
    fn continues_a_path(&self) -> bool {
        let before = self.at.checked_sub(1).map(|at| &self.tokens[at].token);
        matches!(before, Some(Token::PathSep | Token::Punct('.')))
    }

    fn enter_inline_module(&mut self) {
        if let (Some(name), true) = (self.ident(1).map(str::to_owned), self.is(2, '{')) {
            self.inline.push((name, self.depth));
        }
    }

    /// Reads one path, or one branch of a `use` tree, that starts here; `before` is what stands in front of it.
    fn path(&mut self, before: &[String]) {
        let line = self.tokens[self.at].line;
        let mut segments = before.to_vec();
        loop {
            match self.token(0) {
                Some(Token::Ident(word)) => segments.push(word.clone()),
                Some(Token::Punct('*')) => segments.push("*".to_owned()),
                Some(Token::Punct('{')) => return self.group(&segments),
                _ => return,
            }
            self.at += 1;
            // A turbofish (`::<`) ends the path.
            let goes_on = match self.token(1) {
                Some(Token::Ident(_)) => true,
                Some(Token::Punct(punct)) => matches!(punct, '{' | '*'),
                _ => false,
            };
            if self.token(0) != Some(&Token::PathSep) || !goes_on {
                break;
            }
            self.at += 1;
        }
        if segments.last().is_some_and(|last| last == "self") && segments.len() > 1 {
            segments.pop();
        }
        self.record(line, segments);
    }

    /// The branches of `{a, b::c, …}`.
    fn group(&mut self, before: &[String]) {
        self.at += 1;
        while let Some(token) = self.token(0) {
            match token {
                Token::Punct('}') => {
                    self.at += 1;
                    return;
                }
                Token::Ident(word) if word == "as" => self.at += 2,
                Token::Ident(_) | Token::Punct('*' | '{') => self.path(before),
                _ => self.at += 1,
            }
        }
    }

    fn record(&mut self, line: usize, segments: Vec<String>) {
        let segments = self.resolve(segments);
        if segments.len() > 1 {
            self.file.paths.push(Named { line, segments });
        }
    }

    /// `self::` and `super::` become `crate::…`.
    fn resolve(&self, segments: Vec<String>) -> Vec<String> {
        if segments[0] == "cupbearer" {
            return [vec!["crate".to_owned()], segments[1..].to_vec()].concat();
        }
        if segments[0] != "self" && segments[0] != "super" || segments.len() == 1 {
            return segments;
        }
        let mut here = self.file.module.clone();
        here.extend(self.inline.iter().map(|(name, _)| name.clone()));
        let mut rest = segments.as_slice();
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "self" => {}
                "super" => {
                    here.pop();
                }
                _ => break,
            }
            rest = others;
        }
        [vec!["crate".to_owned()], here, rest.to_vec()].concat()
    }

    /// `#[cfg(…test…)]`, but not `#[cfg(not(test))]`.
    fn starts_test_attribute(&self) -> bool {
        if !(self.is(0, '#') && self.is(1, '[') && self.ident(2) == Some("cfg")) {
            return false;
        }
        let inside = (3..).map_while(|ahead| (!self.is(ahead, ']')).then(|| self.token(ahead)).flatten());
        let words: Vec<&str> = inside
            .filter_map(|token| match token {
                Token::Ident(word) => Some(word.as_str()),
                _ => None,
            })
            .collect();
        words.contains(&"test") && !words.contains(&"not")
    }

    /// Skips the attribute, those after it, and the item that they stand on.
    fn skip_test_item(&mut self) {
        while self.is(0, '#') {
            while self.at < self.tokens.len() && !self.is(0, ']') {
                self.at += 1;
            }
            self.at += 1;
        }
        let mut open = 0_usize;
        let mut last_two = (String::new(), String::new());
        while let Some(token) = self.token(0).cloned() {
            self.at += 1;
            match token {
                Token::Ident(word) => last_two = (last_two.1, word),
                Token::Punct('{' | '(' | '[') => open += 1,
                Token::Punct(')' | ']') => open = open.saturating_sub(1),
                Token::Punct('}') if open <= 1 => {
                    // A `use` tree goes on to its semicolon.
                    if self.is(0, ';') {
                        self.at += 1;
                    }
                    return;
                }
                Token::Punct('}') => open -= 1,
                Token::Punct(';') if open == 0 => {
                    if last_two.0 == "mod" {
                        let here = self.file.module.iter().cloned();
                        let module: Vec<String> = here.chain([last_two.1]).collect();
                        self.file.test_modules.push(module.join("/"));
                    }
                    return;
                }
                _ => {}
            }
        }
    }
}

/// Words and punctuation; comments, strings, characters, lifetimes and numbers are passed over.
fn tokenize(text: &str) -> Vec<Placed> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let token = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => {
                at = end_of_line(&chars, at);
                None
            }
            '/' if chars.get(at + 1) == Some(&'*') => {
                at = end_of_comment(&chars, at);
                None
            }
            '"' => {
                at = end_of_string(&chars, at);
                None
            }
            '\'' => {
                at = end_of_char_or_lifetime(&chars, at);
                None
            }
            c if c.is_alphabetic() || c == '_' => {
                while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                if let Some(end) = end_of_raw_string(&chars, &word, at) {
                    at = end;
                    None
                } else {
                    Some(Token::Ident(word))
                }
            }
            c if c.is_ascii_digit() => {
                while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                    at += 1;
                }
                None
            }
            ':' if chars.get(at + 1) == Some(&':') => {
                at += 2;
                Some(Token::PathSep)
            }
            c => {
                at += 1;
                (!c.is_whitespace()).then_some(Token::Punct(c))
            }
        };
        if let Some(token) = token {
            tokens.push(Placed { token, line });
        }
        line += chars[start..at.min(chars.len())].iter().filter(|&&c| c == '\n').count();
    }
    tokens
}

fn end_of_line(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|&c| c == '\n').map_or(chars.len(), |length| at + length)
}

/// Block comments nest.
fn end_of_comment(chars: &[char], mut at: usize) -> usize {
    let mut open = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                open += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                open -= 1;
                at += 2;
            }
            _ => at += 1,
        }
        if open == 0 {
            break;
        }
    }
    at
}

fn end_of_string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// After `r`, `br` or `cr`: the end of `#"…"#`, if that is what follows.
fn end_of_raw_string(chars: &[char], word: &str, at: usize) -> Option<usize> {
    if !matches!(word, "r" | "br" | "cr") {
        return None;
    }
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = at + hashes + 1;
    let length = chars[body..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(chars.len(), |length| body + length + end.len()))
}

/// `'x'`, `'\n'` and `'\u{1f}'` are characters; any other quote starts a lifetime.
fn end_of_char_or_lifetime(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let from = at + 3;
            chars[from.min(chars.len())..]
                .iter()
                .position(|&c| c == '\'')
                .map_or(chars.len(), |length| from + length + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

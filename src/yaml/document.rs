//! YAML text as a tree that remembers lines.
//!
//! Pure. The parser's events are kept in one vector and refer to each other by
//! index, so an alias is the same node once more and a document made of aliases
//! is never larger than its text. Values keep the text that was written: what
//! it means is decided by the key it belongs to, so that a
//! tag named `1.10` is not a number on the way.

use granit_parser::{Event, Parser, ScalarStyle};

/// How deep a document may nest; a configuration needs four levels.
const DEPTH: usize = 16;

/// A node of a [`Document`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

/// A parsed document.
#[derive(Debug)]
pub(crate) struct Document {
    nodes: Vec<Node>,
}

#[derive(Debug)]
pub(crate) struct Node {
    /// Line in the text, from 1.
    pub(crate) line: usize,
    pub(crate) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing, `~` or `null`.
    Null,
    Scalar {
        text: String,
        /// Not quoted.
        plain: bool,
    },
    Sequence(Vec<NodeId>),
    Mapping(Vec<(NodeId, NodeId)>),
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Line in the text, from 1.
    pub(crate) line: usize,
    /// The key it belongs to, from the root, with dots; empty for the text itself.
    pub(crate) key: String,
    pub(crate) text: String,
}

impl Problem {
    pub(crate) fn new(line: usize, text: impl Into<String>) -> Self {
        Self {
            line,
            key: String::new(),
            text: text.into(),
        }
    }

    /// The same problem, one level further down from the root.
    pub(crate) fn below(mut self, key: &str) -> Self {
        self.key = match self.key.as_str() {
            "" => key.to_owned(),
            inner => format!("{key}.{inner}"),
        };
        self
    }
}

impl Document {
    /// Reads one document, which must be UTF-8. An empty text is a null.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let before = &bytes[..e.valid_up_to()];
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            Problem::new(line, "not UTF-8 text")
        })?;
        let options = granit_parser::options! {
            emit_comments: false,
            flow_nesting_limit: DEPTH,
            block_nesting_limit: DEPTH,
        };
        let mut builder = Builder::default();
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|e| {
                Problem::new(e.marker().line().max(1), format!("not YAML: {}", e.info()))
            })?;
            builder.event(event, span.start.line().max(1))?;
        }
        Ok(builder.finish())
    }

    /// The root node.
    pub(crate) fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// The node with this id, which must be of this document.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }
}

#[derive(Default)]
struct Builder {
    /// The first is the root.
    nodes: Vec<Node>,
    /// Collections that are not closed yet, with a mapping's key in waiting.
    open: Vec<(NodeId, Option<NodeId>, usize)>,
    /// Where each anchor of a finished node points, by the parser's number.
    anchors: Vec<Option<NodeId>>,
    documents: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Problem::new(
                        line,
                        "a second document begins here; one is read",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                let plain = style == ScalarStyle::Plain;
                let content = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Content::Null
                } else {
                    Content::Scalar {
                        text: text.into_owned(),
                        plain,
                    }
                };
                let id = self.push(line, content);
                self.anchor(anchor, id);
                self.attach(id);
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                let id = self.push(line, Content::Sequence(Vec::new()));
                self.open.push((id, None, anchor));
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                let id = self.push(line, Content::Mapping(Vec::new()));
                self.open.push((id, None, anchor));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((id, _, anchor)) = self.open.pop() {
                    // Only now: a collection cannot be part of itself.
                    self.anchor(anchor, id);
                    self.attach(id);
                }
            }
            Event::Alias(anchor) => match self.anchors.get(anchor) {
                Some(Some(id)) => self.attach(*id),
                _ => return Err(Problem::new(line, "an alias to what it is part of")),
            },
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, line: usize, content: Content) -> NodeId {
        self.nodes.push(Node { line, content });
        NodeId(self.nodes.len() - 1)
    }

    fn anchor(&mut self, anchor: usize, id: NodeId) {
        if anchor == 0 {
            return;
        }
        if self.anchors.len() <= anchor {
            self.anchors.resize(anchor + 1, None);
        }
        self.anchors[anchor] = Some(id);
    }

    fn attach(&mut self, child: NodeId) {
        let Some((parent, key, _)) = self.open.last_mut() else {
            return;
        };
        match &mut self.nodes[parent.0].content {
            Content::Sequence(items) => items.push(child),
            Content::Mapping(entries) => match key.take() {
                Some(key) => entries.push((key, child)),
                None => *key = Some(child),
            },
            Content::Null | Content::Scalar { .. } => {}
        }
    }

    fn finish(mut self) -> Document {
        if self.nodes.is_empty() {
            self.push(1, Content::Null);
        }
        Document { nodes: self.nodes }
    }
}

fn refuse_tag(tagged: bool, line: usize) -> Result<(), Problem> {
    if tagged {
        Err(Problem::new(line, "YAML tags (!...) are not used here"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(document: &Document, id: NodeId) -> String {
        let list = |ids: &[NodeId]| {
            ids.iter()
                .map(|i| shape(document, *i))
                .collect::<Vec<_>>()
                .join(" ")
        };
        match &document.node(id).content {
            Content::Null => "~".into(),
            Content::Scalar { text, plain: true } => text.clone(),
            Content::Scalar { text, plain: false } => format!("{text:?}"),
            Content::Sequence(items) => format!("[{}]", list(items)),
            Content::Mapping(entries) => {
                let ids: Vec<_> = entries.iter().flat_map(|(k, v)| [*k, *v]).collect();
                format!("{{{}}}", list(&ids))
            }
        }
    }

    fn parsed(text: &str) -> String {
        let document = Document::parse(text.as_bytes()).unwrap();
        shape(&document, document.root())
    }

    fn problem(text: &[u8]) -> (usize, String) {
        let problem = Document::parse(text).unwrap_err();
        (problem.line, problem.text)
    }

    #[test]
    fn text_is_kept_as_it_was_written() {
        assert_eq!(parsed(""), "~");
        assert_eq!(parsed("# nothing\n"), "~");
        assert_eq!(
            parsed("a: 1.10\nb: \"60\"\nc:\nd: [x, ~, yes]\n"),
            "{a 1.10 b \"60\" c ~ d [x ~ yes]}"
        );
        assert_eq!(parsed("localhost:5000:\n  x: y"), "{localhost:5000 {x y}}");
    }

    #[test]
    fn lines_are_those_of_the_text() {
        let document = Document::parse(b"# one\na:\n  b: 1\n\n  c:\n    - x\n    - y\n").unwrap();
        let lines: Vec<_> = document
            .nodes
            .iter()
            .filter_map(|n| match &n.content {
                Content::Scalar { text, .. } => Some((text.as_str(), n.line)),
                _ => None,
            })
            .collect();
        assert_eq!(
            lines,
            [("a", 2), ("b", 3), ("1", 3), ("c", 5), ("x", 6), ("y", 7)]
        );
    }

    #[test]
    fn an_alias_is_the_same_node() {
        assert_eq!(parsed("a: &x [1, 2]\nb: *x\n"), "{a [1 2] b [1 2]}");
        let mut bomb = String::from("a0: &a0 x\n");
        for n in 1..200 {
            let p = n - 1;
            bomb.push_str(&format!(
                "a{n}: &a{n} [*a{p}, *a{p}, *a{p}, *a{p}, *a{p}]\n"
            ));
        }
        let document = Document::parse(bomb.as_bytes()).unwrap();
        assert!(document.nodes.len() <= 401);
    }

    #[test]
    fn what_cannot_be_read_names_its_line() {
        assert_eq!(problem(b"a: 1\nb: \xff\n"), (2, "not UTF-8 text".into()));
        assert_eq!(problem(b"a: &x [*x]\n").1, "an alias to what it is part of");
        assert_eq!(problem(b"a: 1\n---\nb: 2\n").0, 2);
        assert_eq!(
            problem(b"a: !!str 1\n").1,
            "YAML tags (!...) are not used here"
        );
        assert_eq!(problem(b"a: 1\nb: [1, 2\nc: 3\n").0, 3);
        assert!(problem(b"a: 1\n\tb: 2\n").1.starts_with("not YAML: "));
        assert!(
            problem("[".repeat(100).as_bytes())
                .1
                .starts_with("not YAML: ")
        );
        assert!(problem(b"a: *nowhere\n").1.starts_with("not YAML: "));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Document::parse(&bytes);
        }

        #[test]
        fn anything_like_yaml_is_read_or_refused(text in "[a-c0-9:\\-\\[\\]{}&*!|>'\"%#, ~?\n\t]{0,200}") {
            if let Err(problem) = Document::parse(text.as_bytes()) {
                prop_assert!(problem.line >= 1);
                prop_assert!(problem.line <= text.lines().count() + 1);
            }
        }
    }
}

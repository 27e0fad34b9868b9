//! What the pages of a PDF document need, checked before their text is read.
//!
//! A file of a few kilobytes can have pages that have each other as parents, forms that show themselves or each other a billion times,
//! or tables of characters with billions of entries. The parser follows all of these.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use adobe_cmap_parser::Value;
use pdf_extract::content::Content;
use pdf_extract::{Dictionary, Document, Object, ObjectId, Stream};

use super::content::content;

/// The most bytes of the instructions of a page, or of a form. They take some dozens of times their bytes.
const MAX_CONTENT: usize = 1 << 24;
/// The most bytes of a font's table.
const MAX_FONT: usize = 1 << 23;
/// The most bytes that are to be read for all pages, counted as often as they are read.
const MAX_WORK: usize = 1 << 30;
/// The most characters that the ranges of a font name.
const MAX_CODES: u64 = 1 << 20;
/// The most levels of the tree of pages, and of forms in forms.
const MAX_DEPTH: usize = 64;

/// The addresses of the streams that are needed for text.
///
/// # Errors
///
/// If they are too many, too long or circular.
pub(super) fn needed(document: &Document) -> Result<HashSet<usize>, String> {
    check_tree(document)?;
    let mut work = Work {
        document,
        needed: HashSet::new(),
        forms: HashMap::new(),
        fonts: HashMap::new(),
    };
    let mut total = 0;
    for id in document.get_pages().into_values() {
        total += work.page(id)?;
        if total > MAX_WORK {
            return Err(format!(
                "more than {MAX_WORK} bytes are to be read for its pages"
            ));
        }
    }
    Ok(work.needed)
}

/// What identifies a part of the document.
pub(super) fn address<T>(part: &T) -> usize {
    std::ptr::from_ref(part).addr()
}

/// Follows the tree of pages down.
fn check_tree(document: &Document) -> Result<(), String> {
    let root = document.catalog().and_then(|catalog| catalog.get(b"Pages"));
    let mut open: Vec<ObjectId> = root.and_then(Object::as_reference).into_iter().collect();
    let mut seen = HashSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            return Err("the tree of its pages is circular".into());
        }
        let kids = document
            .get_dictionary(id)
            .and_then(|node| node.get_deref(b"Kids", document));
        let kids = kids.and_then(Object::as_array).into_iter().flatten();
        let kids = kids.filter_map(|kid| kid.as_reference().ok());
        let is_node = |id: &ObjectId| {
            document
                .get_dictionary(*id)
                .is_ok_and(|node| node.has_type(b"Pages"))
        };
        open.extend(kids.filter(is_node));
    }
    Ok(())
}

/// The bytes to be read for a form or a page, and its fonts.
#[derive(Clone, Default)]
struct Needs {
    bytes: usize,
    fonts: Rc<BTreeSet<usize>>,
}

struct Work<'a> {
    document: &'a Document,
    needed: HashSet<usize>,
    /// By the form and the resources that it has if it names none. None while it is followed.
    forms: HashMap<(usize, usize), Option<Needs>>,
    /// The bytes of each font.
    fonts: HashMap<usize, usize>,
}

impl<'a> Work<'a> {
    fn page(&mut self, id: ObjectId) -> Result<usize, String> {
        let Ok(page) = self.document.get_dictionary(id) else {
            return Ok(0);
        };
        let resources = self.inherited_resources(page)?;
        let mut instructions = Vec::new();
        for id in self.document.get_page_contents(id) {
            if let Ok(stream) = self.document.get_object(id).and_then(Object::as_stream) {
                self.needed.insert(address(stream));
                instructions.extend(content(stream, MAX_CONTENT - instructions.len())?);
            }
        }
        let needs = self.instructions(&instructions, resources, 0)?;
        let fonts = needs.fonts.iter().map(|font| self.fonts[font]);
        Ok(needs.bytes + fonts.sum::<usize>())
    }

    /// The resources of a page or of the nodes above it.
    fn inherited_resources(&self, page: &'a Dictionary) -> Result<Option<&'a Dictionary>, String> {
        let (mut node, mut found) = (page, None);
        for _ in 0..MAX_DEPTH {
            found = found.or_else(|| self.dictionary(node, b"Resources"));
            let parent = node.get(b"Parent").and_then(Object::as_reference);
            match parent.and_then(|id| self.document.get_dictionary(id)) {
                Ok(parent) => node = parent,
                Err(_) => return Ok(found),
            }
        }
        Err("the tree of its pages is circular, or deeper than 64 levels".into())
    }

    fn instructions(
        &mut self,
        bytes: &[u8],
        resources: Option<&'a Dictionary>,
        depth: usize,
    ) -> Result<Needs, String> {
        let mut needs = Needs {
            bytes: bytes.len(),
            ..Needs::default()
        };
        let (Some(resources), Ok(content)) = (resources, Content::decode(bytes)) else {
            return Ok(needs);
        };
        let mut fonts = BTreeSet::new();
        for operation in &content.operations {
            let Some(Object::Name(name)) = operation.operands.first() else {
                continue;
            };
            let named = |kind: &[u8]| self.object(self.dictionary(resources, kind)?, name);
            match operation.operator.as_str() {
                "Do" => {
                    let Some(Object::Stream(form)) = named(b"XObject") else {
                        continue;
                    };
                    let subtype = form.dict.get(b"Subtype").and_then(Object::as_name);
                    if subtype.is_ok_and(|subtype| subtype == b"Form") {
                        let more = self.form(form, resources, depth + 1)?;
                        needs.bytes += more.bytes;
                        fonts.extend(more.fonts.iter());
                    }
                }
                "Tf" => {
                    if let Some(Object::Dictionary(font)) = named(b"Font") {
                        self.font(font)?;
                        fonts.insert(address(font));
                    }
                }
                _ => {}
            }
            if needs.bytes > MAX_WORK {
                return Err(format!(
                    "more than {MAX_WORK} bytes are to be read for a page"
                ));
            }
        }
        needs.fonts = Rc::new(fonts);
        Ok(needs)
    }

    fn form(
        &mut self,
        form: &'a Stream,
        outer: &'a Dictionary,
        depth: usize,
    ) -> Result<Needs, String> {
        let resources = self.dictionary(&form.dict, b"Resources").unwrap_or(outer);
        let key = (address(form), address(resources));
        match self.forms.get(&key) {
            Some(Some(needs)) => return Ok(needs.clone()),
            Some(None) => return Err("a form of it shows itself".into()),
            None if depth > MAX_DEPTH => {
                return Err("its forms are nested deeper than 64 levels".into());
            }
            None => {}
        }
        self.needed.insert(address(form));
        self.forms.insert(key, None);
        let needs = self.instructions(&content(form, MAX_CONTENT)?, Some(resources), depth)?;
        self.forms.insert(key, Some(needs.clone()));
        Ok(needs)
    }

    /// Checks the tables of a font that are read for text.
    fn font(&mut self, font: &'a Dictionary) -> Result<(), String> {
        if self.fonts.contains_key(&address(font)) {
            return Ok(());
        }
        let descriptor = self.dictionary(font, b"FontDescriptor");
        let own = [b"ToUnicode".as_slice(), b"Encoding"].map(|key| (key, self.object(font, key)));
        let described = [b"FontFile".as_slice(), b"FontFile3"].map(|key| {
            (
                key,
                descriptor.and_then(|descriptor| self.object(descriptor, key)),
            )
        });
        let mut bytes = 0;
        for (key, table) in own.into_iter().chain(described) {
            let Some(Object::Stream(stream)) = table else {
                continue;
            };
            self.needed.insert(address(stream));
            let table = content(stream, MAX_FONT)?;
            bytes += table.len();
            // The last is binary.
            if key != b"FontFile3" && nested_deeper_than(MAX_DEPTH, &table) {
                return Err(format!(
                    "the {} of a font is nested too deeply",
                    String::from_utf8_lossy(key)
                ));
            }
            if key == b"ToUnicode" && codes(&table) > MAX_CODES {
                return Err(format!(
                    "a font of it names more than {MAX_CODES} characters"
                ));
            }
        }
        self.fonts.insert(address(font), bytes);
        Ok(())
    }

    fn object(&self, dictionary: &'a Dictionary, key: &[u8]) -> Option<&'a Object> {
        dictionary.get_deref(key, self.document).ok()
    }

    fn dictionary(&self, dictionary: &'a Dictionary, key: &[u8]) -> Option<&'a Dictionary> {
        self.object(dictionary, key)?.as_dict().ok()
    }
}

/// Whether brackets are nested so in PostScript. What is behind `eexec` is encrypted.
fn nested_deeper_than(most: usize, program: &[u8]) -> bool {
    let end = program.windows(5).position(|word| word == b"eexec");
    let mut bytes = program[..end.unwrap_or(program.len())].iter();
    let (mut depth, mut in_string) = (0usize, 0usize);
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string > 0 => _ = bytes.next(),
            b'(' => in_string += 1,
            b')' => in_string = in_string.saturating_sub(1),
            _ if in_string > 0 => {}
            b'%' => _ = bytes.find(|byte| matches!(byte, b'\n' | b'\r')),
            b'[' | b'{' | b'<' => depth += 1,
            b']' | b'}' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth.max(in_string) > most {
            return true;
        }
    }
    false
}

/// How many characters the ranges of a table name, counted as its parser reads them.
fn codes(table: &[u8]) -> u64 {
    let code = |value: Option<&Value>| match value {
        Some(Value::LiteralString(text)) => text
            .iter()
            .fold(0u32, |code, byte| (code << 8) | u32::from(*byte)),
        _ => 0,
    };
    let values = adobe_cmap_parser::parse(table).unwrap_or_default();
    let mut sum = 0;
    for (place, value) in values.iter().enumerate() {
        let is_start = matches!(value, Value::Operator(name) if name == "beginbfrange");
        let count = place.checked_sub(1).map(|before| &values[before]);
        if let (true, Some(Value::Integer(count))) = (is_start, count) {
            let ranges = values[place + 1..]
                .chunks_exact(3)
                .take(usize::try_from(*count).unwrap_or(0));
            sum += ranges
                .map(|range| u64::from(code(range.get(1)).saturating_sub(code(range.first()))) + 1)
                .sum::<u64>();
        }
    }
    sum
}

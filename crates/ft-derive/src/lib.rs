//! `#[derive(Parts)]`, used through `ft_core::Parts`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Fields, LitStr, Path, parse_macro_input, parse_quote};

/// Implements `ft_core::Parts` for a struct whose fields are parts, or for an enum with one of them a variant.
///
/// The path of a field is its name. A name that ends in `_` loses it, so that `self_` is `self`, which Rust
/// does not allow as a name. A field whose name begins with `_` adds nothing to the paths of its parts.
///
/// Fields with `#[module(skip)]` or `#[parts(skip)]` are left out. `#[parts(output = "embed_out")]` on the struct
/// names its output layer; without it, it is `lm_head`. `#[parts(key_heads)]` marks the field of an attention layer that
/// holds the number of key heads. `#[parts(encoder)]` on the struct says that tokens see those after them, and
/// `#[parts(task = "SEQ_CLS")]` names PEFT's task of its head. `#[parts(crate = ft::core)]` names the path of ft-core where a
/// crate depends on the facade alone.
#[proc_macro_derive(Parts, attributes(module, parts))]
pub fn derive_parts(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implementation(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

fn implementation(input: &DeriveInput) -> syn::Result<TokenStream> {
    let name = &input.ident;
    let (generics, types, bounds) = input.generics.split_for_impl();
    let Options {
        core,
        output,
        task,
        encoder,
    } = Options::of(&input.attrs)?;
    let (walk, walk_mut, output) = match &input.data {
        Data::Struct(data) => {
            let (walk, walk_mut) = of_struct(&data.fields, &core)?;
            let key_heads = key_heads(&data.fields, &core)?;
            let is_encoder = match encoder {
                true => quote! {
                    fn is_encoder(&self) -> bool { true }
                },
                false => is_encoder(&data.fields, &core)?,
            };
            let task = match task {
                Some(name) => quote! {
                    fn task_type(&self) -> Option<&'static str> { Some(#name) }
                },
                None => task_type(&data.fields, &core)?,
            };
            let output = output.map(|path| {
                quote! {
                    fn output_layer(&self) -> &'static str { #path }
                }
            });
            (walk, walk_mut, quote!(#output #key_heads #is_encoder #task))
        }
        Data::Enum(data) => {
            let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
            if let Some(other) = data.variants.iter().find(|v| v.fields.len() != 1) {
                return Err(syn::Error::new_spanned(
                    other,
                    "a variant of an enum of parts holds one part",
                ));
            }
            (
                quote!(match self { #(Self::#variants(part) => #core::Parts::walk(part, path, visit),)* }),
                quote!(match self { #(Self::#variants(part) => #core::Parts::walk_mut(part, path, visit),)* }),
                quote! {
                    fn output_layer(&self) -> &'static str {
                        match self { #(Self::#variants(part) => #core::Parts::output_layer(part),)* }
                    }
                    fn key_heads(&self) -> Option<usize> {
                        match self { #(Self::#variants(part) => #core::Parts::key_heads(part),)* }
                    }
                    fn is_encoder(&self) -> bool {
                        match self { #(Self::#variants(part) => #core::Parts::is_encoder(part),)* }
                    }
                    fn task_type(&self) -> Option<&'static str> {
                        match self { #(Self::#variants(part) => #core::Parts::task_type(part),)* }
                    }
                },
            )
        }
        Data::Union(_) => {
            return Err(syn::Error::new_spanned(
                name,
                "a union cannot be walked through",
            ));
        }
    };
    Ok(quote! {
        impl #generics #core::Parts for #name #types #bounds {
            fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, #core::Part<'_>)) {
                #walk
            }
            fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, #core::PartMut<'_>)) {
                #walk_mut
            }
            #output
        }
    })
}

fn of_struct(fields: &Fields, core: &Path) -> syn::Result<(TokenStream, TokenStream)> {
    let (mut walk, mut walk_mut) = (TokenStream::new(), TokenStream::new());
    for (index, field) in fields.iter().enumerate() {
        if has(&field.attrs, "skip")? {
            continue;
        }
        let (member, name) = match &field.ident {
            Some(ident) => {
                let name = ident.to_string();
                let name = name.strip_prefix("r#").unwrap_or(&name);
                (
                    quote!(#ident),
                    name.strip_suffix('_').unwrap_or(name).to_string(),
                )
            }
            None => {
                let place = syn::Index::from(index);
                (quote!(#place), index.to_string())
            }
        };
        let path = format_ident!("path");
        let path = match name.starts_with('_') {
            true => quote!(#path),
            false => quote!(&#core::module_path::join(#path, #name)),
        };
        walk.extend(quote! {
            #core::Parts::walk(&self.#member, #path, visit);
        });
        walk_mut.extend(quote! {
            #core::Parts::walk_mut(&mut self.#member, #path, visit);
        });
    }
    Ok((walk, walk_mut))
}

/// The first number of key heads that a field is or has.
fn key_heads(fields: &Fields, core: &Path) -> syn::Result<TokenStream> {
    let mut found = TokenStream::new();
    for (index, field) in fields.iter().enumerate() {
        let member = member(index, field);
        if has(&field.attrs, "key_heads")? {
            found.extend(quote!(.or(Some(self.#member))));
        } else if !has(&field.attrs, "skip")? {
            found.extend(quote!(.or_else(|| #core::Parts::key_heads(&self.#member))));
        }
    }
    Ok(quote! {
        fn key_heads(&self) -> Option<usize> { None #found }
    })
}

/// Whether one of the fields is an encoder.
fn is_encoder(fields: &Fields, core: &Path) -> syn::Result<TokenStream> {
    let mut found = TokenStream::new();
    for (index, field) in fields.iter().enumerate() {
        let member = member(index, field);
        if !has(&field.attrs, "skip")? {
            found.extend(quote!(|| #core::Parts::is_encoder(&self.#member)));
        }
    }
    Ok(quote! {
        fn is_encoder(&self) -> bool { false #found }
    })
}

/// The first task that a field names.
fn task_type(fields: &Fields, core: &Path) -> syn::Result<TokenStream> {
    let mut found = TokenStream::new();
    for (index, field) in fields.iter().enumerate() {
        let member = member(index, field);
        if !has(&field.attrs, "skip")? {
            found.extend(quote!(.or_else(|| #core::Parts::task_type(&self.#member))));
        }
    }
    Ok(quote! {
        fn task_type(&self) -> Option<&'static str> { None #found }
    })
}

/// The name of a field, or its place.
fn member(index: usize, field: &syn::Field) -> syn::Member {
    match &field.ident {
        Some(ident) => ident.clone().into(),
        None => index.into(),
    }
}

/// Whether `#[module(NAME)]` or `#[parts(NAME)]` is among the attributes of a field.
fn has(attributes: &[Attribute], name: &str) -> syn::Result<bool> {
    let mut found = false;
    for attribute in attributes {
        if attribute.path().is_ident("module") || attribute.path().is_ident("parts") {
            attribute.parse_nested_meta(|meta| {
                found |= meta.path.is_ident(name);
                Ok(())
            })?;
        }
    }
    Ok(found)
}

/// What `#[parts(...)]` on a struct says.
struct Options {
    /// The path of ft-core.
    core: Path,
    /// The path of the output layer.
    output: Option<LitStr>,
    /// PEFT's name of the task of the head.
    task: Option<LitStr>,
    /// Whether tokens see those after them.
    encoder: bool,
}

impl Options {
    fn of(attributes: &[Attribute]) -> syn::Result<Self> {
        let mut options = Self {
            core: parse_quote!(::ft_core),
            output: None,
            task: None,
            encoder: false,
        };
        for attribute in attributes.iter().filter(|a| a.path().is_ident("parts")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("output") {
                    options.output = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("task") {
                    options.task = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("encoder") {
                    options.encoder = true;
                } else if meta.path.is_ident("crate") {
                    options.core = meta.value()?.parse()?;
                } else {
                    return Err(meta.error(
                        "expected `output = \"path\"`, `task = \"NAME\"`, `encoder` or `crate = path`",
                    ));
                }
                Ok(())
            })?;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(input: DeriveInput) -> String {
        let code = implementation(&input).expect("can be derived");
        code.to_string().replace(' ', "")
    }

    #[test]
    fn paths_are_field_names_without_a_last_underscore_and_skipped_fields_have_none() {
        let code = expanded(parse_quote! {
            struct Block { self_: Linear, #[module(skip)] scale: Scale }
        });
        assert!(code.contains("::join(path,\"self\")"), "{code}");
        assert!(!code.contains("scale"), "{code}");
    }

    #[test]
    fn a_field_whose_name_begins_with_an_underscore_adds_nothing_to_paths() {
        let code = expanded(parse_quote! {
            struct Classifier { _body: Decoder, score: Linear }
        });
        assert!(code.contains("walk(&self._body,path,visit)"), "{code}");
        assert!(code.contains("::join(path,\"score\")"), "{code}");
    }

    #[test]
    fn a_struct_names_its_task_or_passes_on_that_of_a_field() {
        let named = expanded(parse_quote! {
            #[parts(encoder, task = "SEQ_CLS")]
            struct Classifier { _body: Bert }
        });
        assert!(
            named.contains("{Some(\"SEQ_CLS\")}") && named.contains("{true}"),
            "{named}"
        );
        let outer = expanded(parse_quote! {
            struct Outer { inner: Classifier, #[parts(skip)] name: Name }
        });
        assert!(
            outer.contains("{false||::ft_core::Parts::is_encoder(&self.inner)}"),
            "{outer}"
        );
        assert!(outer.contains("task_type(&self.inner))}"), "{outer}");
    }

    #[test]
    fn a_variant_of_two_fields_is_an_error() {
        let input = parse_quote! { enum Auto { Llama(Llama, Config) } };
        let error = implementation(&input).expect_err("two fields");
        assert!(error.to_string().contains("one part"), "{error}");
    }
}

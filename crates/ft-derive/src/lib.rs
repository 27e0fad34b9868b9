//! `#[derive(Parts)]`, used through `ft_core::Parts`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Fields, LitStr, parse_macro_input};

/// Implements `ft_core::Parts` for a struct whose fields are parts, or for an enum with one of them a variant.
///
/// The path of a field is its name. A name that ends in `_` loses it, so that `self_` is `self`, which Rust
/// does not allow as a name.
///
/// Fields with `#[module(skip)]` or `#[parts(skip)]` are left out. `#[parts(output = "embed_out")]` on the struct
/// names its output layer; without it, it is `lm_head`.
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
    let (walk, walk_mut, output) = match &input.data {
        Data::Struct(data) => {
            let (walk, walk_mut) = of_struct(&data.fields)?;
            (walk, walk_mut, output_layer(&input.attrs)?)
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
                quote!(match self { #(Self::#variants(part) => ::ft_core::Parts::walk(part, path, visit),)* }),
                quote!(match self { #(Self::#variants(part) => ::ft_core::Parts::walk_mut(part, path, visit),)* }),
                quote! {
                    fn output_layer(&self) -> &'static str {
                        match self { #(Self::#variants(part) => ::ft_core::Parts::output_layer(part),)* }
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
        impl #generics ::ft_core::Parts for #name #types #bounds {
            fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, ::ft_core::Part<'_>)) {
                #walk
            }
            fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, ::ft_core::PartMut<'_>)) {
                #walk_mut
            }
            #output
        }
    })
}

fn of_struct(fields: &Fields) -> syn::Result<(TokenStream, TokenStream)> {
    let (mut walk, mut walk_mut) = (TokenStream::new(), TokenStream::new());
    for (index, field) in fields.iter().enumerate() {
        if skipped(&field.attrs)? {
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
        walk.extend(quote! {
            ::ft_core::Parts::walk(&self.#member, &::ft_core::module_path::join(#path, #name), visit);
        });
        walk_mut.extend(quote! {
            ::ft_core::Parts::walk_mut(&mut self.#member, &::ft_core::module_path::join(#path, #name), visit);
        });
    }
    Ok((walk, walk_mut))
}

/// Whether `#[module(skip)]` or `#[parts(skip)]` is among the attributes of a field.
fn skipped(attributes: &[Attribute]) -> syn::Result<bool> {
    let mut skip = false;
    for attribute in attributes {
        if attribute.path().is_ident("module") || attribute.path().is_ident("parts") {
            attribute.parse_nested_meta(|meta| {
                skip |= meta.path.is_ident("skip");
                Ok(())
            })?;
        }
    }
    Ok(skip)
}

/// `#[parts(output = "...")]` as the method that says so.
fn output_layer(attributes: &[Attribute]) -> syn::Result<TokenStream> {
    let mut output = TokenStream::new();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("parts")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("output") {
                return Err(meta.error("expected `output = \"path\"`"));
            }
            let path: LitStr = meta.value()?.parse()?;
            output = quote! {
                fn output_layer(&self) -> &'static str { #path }
            };
            Ok(())
        })?;
    }
    Ok(output)
}

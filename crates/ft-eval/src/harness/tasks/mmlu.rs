//! MMLU: 57 task files, a group for each field of knowledge and a group of all, generated from one template and a table of
//! subjects.
//!
//! The task of a subject is `mmlu_SUBJECT`, with the tag `mmlu_FIELD_tasks`. The groups are `mmlu_FIELD` and `mmlu`; each is
//! the mean over all its questions.

use super::TaskText;

/// The fields of knowledge and their subjects.
const FIELDS: [(&str, &[&str]); 4] = [
    (
        "stem",
        &[
            "abstract_algebra",
            "anatomy",
            "astronomy",
            "college_biology",
            "college_chemistry",
            "college_computer_science",
            "college_mathematics",
            "college_physics",
            "computer_security",
            "conceptual_physics",
            "electrical_engineering",
            "elementary_mathematics",
            "high_school_biology",
            "high_school_chemistry",
            "high_school_computer_science",
            "high_school_mathematics",
            "high_school_physics",
            "high_school_statistics",
            "machine_learning",
        ],
    ),
    (
        "other",
        &[
            "business_ethics",
            "clinical_knowledge",
            "college_medicine",
            "global_facts",
            "human_aging",
            "management",
            "marketing",
            "medical_genetics",
            "miscellaneous",
            "nutrition",
            "professional_accounting",
            "professional_medicine",
            "virology",
        ],
    ),
    (
        "social_sciences",
        &[
            "econometrics",
            "high_school_geography",
            "high_school_government_and_politics",
            "high_school_macroeconomics",
            "high_school_microeconomics",
            "high_school_psychology",
            "human_sexuality",
            "professional_psychology",
            "public_relations",
            "security_studies",
            "sociology",
            "us_foreign_policy",
        ],
    ),
    (
        "humanities",
        &[
            "formal_logic",
            "high_school_european_history",
            "high_school_us_history",
            "high_school_world_history",
            "international_law",
            "jurisprudence",
            "logical_fallacies",
            "moral_disputes",
            "moral_scenarios",
            "philosophy",
            "prehistory",
            "professional_law",
            "world_religions",
        ],
    ),
];

/// The files of the subjects and the groups.
pub(super) fn files() -> impl Iterator<Item = TaskText> {
    let fields = FIELDS.iter().flat_map(|&(field, subjects)| {
        let subjects = subjects.iter().map(move |subject| {
            let text = format!(
                "include: _template\n\
                 task: mmlu_{subject}\n\
                 task_alias: {subject}\n\
                 tag: mmlu_{field}_tasks\n\
                 dataset_name: {subject}\n\
                 description: \"The following are multiple choice questions (with answers) about {}.\\n\\n\"\n",
                subject.replace('_', " ")
            );
            (format!("mmlu/mmlu_{subject}.yaml").into(), text.into())
        });
        subjects.chain([group(
            &format!("mmlu_{field}"),
            &field.replace('_', " "),
            &format!("mmlu_{field}_tasks"),
        )])
    });
    let members = FIELDS.map(|(field, _)| format!("mmlu_{field}"));
    fields.chain([group("mmlu", "mmlu", &members.join(", "))])
}

fn group(name: &str, alias: &str, members: &str) -> TaskText {
    let text = format!(
        "group: {name}\n\
         group_alias: {alias}\n\
         task: [{members}]\n\
         aggregate_metric_list: [{{metric: acc, weight_by_size: true}}]\n\
         metadata: {{version: 2}}\n"
    );
    (format!("mmlu/_{name}.yaml").into(), text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_57_subjects_and_five_groups() {
        assert_eq!(files().count(), 57 + 5);
        let subjects = FIELDS.map(|(_, subjects)| subjects.len());
        assert_eq!(subjects, [19, 13, 12, 13]);
    }
}

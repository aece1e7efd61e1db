"""Other words for the same question: templates, synonyms, courtesies, slips, forms of answers."""

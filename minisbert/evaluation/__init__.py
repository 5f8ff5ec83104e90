"""Is a vector any good? Data sets with known answers, the measures of the field, and the published figures."""

"""A planned merge carried out: folders, processes, journals, the record of what was done."""

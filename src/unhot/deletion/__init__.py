"""A deletion request, from the letter to the evidence: records that others can check, and the way back."""

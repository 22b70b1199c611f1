"""The people behind one number of an answer, of ListPeopleBehind."""

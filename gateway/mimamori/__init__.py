"""The watch over people who may lose their way: whose tag is whose, where it was heard last, and the search when it is missed."""

"""What is printed at the end of a month, and of a capture: the same figures as a page, a PDF and a spreadsheet.

reading.py   what the databases know of a month
figures.py   what that comes to: pure, the only place that reckons
sheet.py     figures as a heading, a sentence and tables of cells, in the reader's language: what every format shows
xlsx.py      such a sheet as a spreadsheet
press.py     a page as a PDF
"""

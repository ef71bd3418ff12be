"""The access matrix of a running lab, proven on the wire: who reaches whom, as whom, and by which path."""

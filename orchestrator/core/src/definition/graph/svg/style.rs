//! Colours and fonts, for light and dark.

/// Every colour twice, because not every viewer knows variables.
pub(super) const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px;fill:#1f2937}
.id{font-weight:600}
.what{fill:#4b5563}
.note{fill:#6b7280;font-style:italic;font-size:12px}
.title{font-size:15px;font-weight:600}
.ground{fill:#ffffff}
.box{fill:#ffffff;stroke:#94a3b8}
.block{fill:#f8fafc;stroke:#cbd5e1}
.lane{fill:#eef2f7}
.lane.bad{fill:#fdf0ee}
.pivot{stroke:#7c3aed;stroke-width:2.5}
.cap{fill:#1f2937;stroke:none}
.captext{fill:#ffffff;font-weight:600}
.undo{fill:#fffaf0;stroke:#d97706;stroke-dasharray:4 3}
.undotext{fill:#92580c}
.edge{stroke:#64748b;stroke-width:1.5;fill:none}
.back{stroke:#d97706;stroke-width:1.5;stroke-dasharray:4 3;fill:none}
.fails{stroke:#dc2626;stroke-width:1.5;stroke-dasharray:4 3;fill:none}
.tip{fill:#64748b;stroke:none}
.backtip{fill:#d97706;stroke:none}
.failstip{fill:#dc2626;stroke:none}
.k-activity{fill:#2563eb}
.k-control{fill:#64748b}
.k-wait{fill:#d97706}
.k-out{fill:#0d9488}
.k-child{fill:#7c3aed}
.k-fail{fill:#dc2626}
.k-end{fill:#16a34a}
@media (prefers-color-scheme: dark){
text{fill:#e5e7eb}
.what{fill:#b6beca}
.note{fill:#9aa4b2}
.ground{fill:#0f172a}
.box{fill:#1e293b;stroke:#64748b}
.block{fill:#141d30;stroke:#334155}
.lane{fill:#1b263b}
.lane.bad{fill:#2e1f26}
.cap{fill:#e5e7eb}
.captext{fill:#0f172a}
.undo{fill:#2a2114;stroke:#f59e0b}
.undotext{fill:#fbbf24}
.edge{stroke:#94a3b8}
.back{stroke:#f59e0b}
.fails{stroke:#f87171}
.tip{fill:#94a3b8}
.backtip{fill:#f59e0b}
.failstip{fill:#f87171}
}
";

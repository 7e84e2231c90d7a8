// Says, on the demo's page, what the models there are.

const text =
    "The models here are small stand-ins under the published models' names: they show that the graphs work, and not what " +
    "the real ones paint. Those are used by: python dev.py demo --published";

const notice = document.createElement("div");
notice.id = "relay-stand-ins";
notice.textContent = text;
Object.assign(notice.style, {
    position: "fixed",
    left: "50%",
    bottom: "12px",
    transform: "translateX(-50%)",
    maxWidth: "60%",
    padding: "8px 14px",
    borderRadius: "8px",
    background: "#5b4a16",
    color: "#fff3cf",
    font: "13px sans-serif",
    pointerEvents: "none",
    zIndex: 1000,
});
document.body.append(notice);
